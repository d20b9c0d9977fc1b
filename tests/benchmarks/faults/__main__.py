"""`make bench-faults`: what is lost, wrong or refused while the running demo is broken on purpose.

    python -m tests.benchmarks.faults [--faults killed_api,redis] [--seconds 10] [--requests 100000] [--state FOLDER]

Each fault prints its line; the table follows, JSON is on stdout, and the exit status is 0 only if every promise was
kept. A fault that breaks off by an error, or takes longer than `--minutes`, is a broken promise too, and the next one
begins once the demo is whole again. A fault that this machine cannot have (no libfaketime, no right to mount) is named
with the reason. The modules:

    load            the clients during a fault, and what came of their requests
    kills           each program is killed
    dependencies    PostgreSQL gives no connection; Redis, Stripe hang
    clock           the clock moves
    disk            the disk under the API's state folder is full
    small_database  the disk of PostgreSQL is full
    tenants         two tenants' pipelines at once, one fails; the disk of a pipeline is full
    releases        files of releases are cut short
    runs            Dagster is restarted while a run works
    hostile         mutated requests, with credentials and without
    table           the table
"""

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from configs.local.demo import READY_PATHS
from configs.settings import PathSettings
from tests.benchmarks.faults.clock import moved_clock
from tests.benchmarks.faults.dependencies import hung_redis, hung_stripe, no_connections
from tests.benchmarks.faults.disk import full_disk
from tests.benchmarks.faults.hostile import hostile_requests
from tests.benchmarks.faults.kills import killed_api, killed_dagster, killed_mlflow, killed_postgres, killed_serving
from tests.benchmarks.faults.load import FaultRow
from tests.benchmarks.faults.releases import cut_releases
from tests.benchmarks.faults.runs import restart_in_run
from tests.benchmarks.faults.small_database import full_disk_of_postgres
from tests.benchmarks.faults.table import table_of
from tests.benchmarks.faults.tenants import full_disk_of_pipelines, two_tenants
from tests.benchmarks.latency.page import commit, machine
from tests.benchmarks.latency.rows import console
from tests.benchmarks.running_demo import RunningDemo, Tenant, running_demo
from tests.fixtures.platform import answers, wait_until

FAULTS: dict[str, Callable[..., list[FaultRow]]] = {
    "killed_api": killed_api,
    "killed_serving": killed_serving,
    "killed_postgres": killed_postgres,
    "killed_mlflow": killed_mlflow,
    "killed_dagster": killed_dagster,
    "no_connections": no_connections,
    "hung_redis": hung_redis,
    "hung_stripe": hung_stripe,
    "moved_clock": moved_clock,
    "cut_releases": cut_releases,
    "full_disk": full_disk,
    "full_disk_of_postgres": full_disk_of_postgres,
    "full_disk_of_pipelines": full_disk_of_pipelines,
    "two_tenants": two_tenants,
    "hostile_requests": hostile_requests,
    "restart_in_run": restart_in_run,
}

WHOLE_SECONDS = 180.0
"""In which a program answers again after a fault, before it is restarted."""
WIDTH = 160
"""Of the table, in characters: a narrower terminal would break the words."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.faults", description="Break the demo.")
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"some of {','.join(FAULTS)}")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a fault lasts that has an end")
    parser.add_argument("--requests", type=int, default=100_000, help="hostile ones")
    parser.add_argument("--minutes", type=float, default=60.0, help="that one fault may take")
    parser.add_argument("--state", type=Path, default=PathSettings().root / "bench-latency", help="of the demo; kept")
    given = parser.parse_args()
    chosen = given.faults.split(",")
    if unknown := set(chosen) - set(FAULTS):
        parser.error(f"there are no faults {sorted(unknown)}")
    rows: list[FaultRow] = []
    with running_demo(given.state) as demo:
        tenant = demo.tenant()
        for name in chosen:
            began = time.monotonic()
            for row in isolated(name, demo, tenant, given.minutes, seconds=given.seconds, requests=given.requests):
                console.print(asdict(row), soft_wrap=True)
                rows.append(row)
            console.print(f"{name}: {time.monotonic() - began:.0f} s")
    Console(stderr=True, width=WIDTH).print(table_of(rows))
    broken = [f"{row.fault}: {promise}" for row in rows for promise, kept in row.promises.items() if not kept]
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    report = {
        "date": date,
        "commit": commit(),
        "machine": machine(),
        "faults": [asdict(row) for row in rows],
        "broken": broken,
    }
    print(json.dumps(report, indent=2))
    sys.exit(1 if broken else 0)


class FaultTimeoutError(Exception):
    """A fault took longer than it may."""


def isolated(name: str, demo: RunningDemo, tenant: Tenant, minutes: float, **options: Any) -> list[FaultRow]:
    """The rows of one fault. An error in it is a broken promise, and its traceback is shown.

    The demo is whole again afterwards. Raises AssertionError where it cannot be made so, since the faults that follow
    would measure nothing.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise FaultTimeoutError(f"{name} took more than {minutes:g} minutes")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)
    try:
        rows = FAULTS[name](demo, tenant, **options)
    except Exception as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        console.print(traceback.format_exc(), markup=False, highlight=False)
        rows = [FaultRow(name, notes={"error": repr(error)[:500]}, promises={"ran to its end": False})]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    make_whole(demo, tenant)
    return rows


def make_whole(demo: RunningDemo, tenant: Tenant) -> None:
    """Wait until every program answers and the tenant's release serves; restart those that do not by themselves."""
    for program, path in READY_PATHS.items():
        url = demo.values[f"{program.upper()}_URL"] + path
        try:
            wait_until(program, partial(answers, url), WHOLE_SECONDS)
        except AssertionError:
            demo.control("restart", program)
            wait_until(program, partial(answers, url), WHOLE_SECONDS)
    wait_until("the release", lambda: tenant.id in demo.releases(), WHOLE_SECONDS)


if __name__ == "__main__":
    main()
