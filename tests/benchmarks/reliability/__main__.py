"""`make bench-reliability`: what happens to 32 clients while parts of the running demo fail, restart or are replaced.

    python -m tests.benchmarks.reliability [--scenarios swap,killed] [--seconds 5] [--answers 20000] [--state FOLDER]

Each scenario prints its counts and seconds, and what is promised of it with yes or no. JSON is on stdout; the exit
status is 1 where a promise is broken. The modules of this package:

    swaps           a release is swapped in: the tenant's own, and its neighbour's
    model_server    the model server is killed, hangs, is slow, answers garbage
    database        PostgreSQL is restarted
    api_processes   the API is told to end; two processes behind one port (balancer) are restarted in turn
    memory          memory of API and model server over a long load
    traffic         the clients, in a process of their own; answers tells what they saw
"""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.settings import PathSettings
from tests.benchmarks.latency.page import commit, machine
from tests.benchmarks.latency.rows import console
from tests.benchmarks.reliability.api_processes import drained, rolling
from tests.benchmarks.reliability.database import database
from tests.benchmarks.reliability.memory import memory
from tests.benchmarks.reliability.model_server import garbage, hung, killed, slow
from tests.benchmarks.reliability.swaps import neighbour, swap
from tests.benchmarks.running_demo import running_demo

SCENARIOS: dict[str, Callable[..., dict[str, Any]]] = {
    "swap": swap,
    "neighbour": neighbour,
    "killed": killed,
    "hung": hung,
    "slow": slow,
    "garbage": garbage,
    "database": database,
    "drained": drained,
    "rolling": rolling,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.reliability", description="Disturb the demo.")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help=f"some of {','.join(SCENARIOS)}")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long a trouble lasts")
    parser.add_argument("--answers", type=int, default=20_000, help="at least, while releases are swapped")
    parser.add_argument("--memory-seconds", type=float, default=60.0, help="600 for the whole promise")
    parser.add_argument("--state", type=Path, default=PathSettings().root / "bench-latency", help="of the demo; kept")
    given = parser.parse_args()
    chosen = given.scenarios.split(",")
    if unknown := set(chosen) - set(SCENARIOS):
        parser.error(f"there are no scenarios {sorted(unknown)}")
    options = {"seconds": given.seconds, "answers": given.answers, "memory_seconds": given.memory_seconds}
    found = []
    with running_demo(given.state) as demo:
        tenant = demo.tenant()
        for name in chosen:
            result = {"scenario": name, **SCENARIOS[name](demo, tenant, **options)}
            console.print(result, soft_wrap=True)
            found.append(result)
    broken = [
        f"{result['scenario']}: {promise}"
        for result in found
        for promise, kept in result["verdicts"].items()
        if not kept
    ]
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    report = {"date": date, "commit": commit(), "machine": machine(), "scenarios": found, "broken": broken}
    print(json.dumps(report, indent=2))
    if broken:
        console.print("not kept:", broken, style="bold red", soft_wrap=True)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
