"""`make bench-latency`: what a recommendation costs on the demo as `make demo` starts it, all of its programs running.

    python -m tests.benchmarks.latency [--rows hybrid,fresh] [--seconds 6] [--rounds 3] [--state FOLDER]

The load comes from `wrk`. Rounds take turns, and medians are shown. Processor time by program is from /proc. A run of
all rows writes docs/latency.md. JSON is on stdout; the exit status is 1 where any answer failed, was degraded, or
differs from an uncached one. The modules of this package:

    rows, targets.yaml          what is measured, and what must be reached
    measure, generator          one round: load, and processor time on it; requests.lua is wrk's part
    fresh                       the rows in which each request follows an interaction of the user
    baselines                   a bare no-op and a naive peer, in processes of their own
    page, page.md, before.json  docs/latency.md, and the figures of before that it shows beside today's
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.settings import PathSettings
from tests.benchmarks.latency.generator import name_of_generator
from tests.benchmarks.latency.page import PAGE, commit, machine, render, verdicts
from tests.benchmarks.latency.rows import ROWS, Options, console, measure_rows
from tests.benchmarks.running_demo import running_demo


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.latency", description="Measure the demo.")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"some of {','.join(ROWS)}")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one round of one row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--state", type=Path, default=PathSettings().root / "bench-latency", help="of the demo; kept")
    parser.add_argument("--page", type=Path, help=f"write the page here; a run of all rows writes {PAGE.name}")
    parser.add_argument("--note", default="", help="what the page should say about the conditions of this run")
    given = parser.parse_args()
    rows = tuple(given.rows.split(","))
    if unknown := set(rows) - set(ROWS):
        parser.error(f"there are no rows {sorted(unknown)}")
    options = Options(rows, given.seconds, given.rounds)
    with running_demo(given.state) as demo:
        measured = measure_rows(demo, options)
    result: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "command": " ".join(["python -m tests.benchmarks.latency", *sys.argv[1:]]),
        "machine": machine(),
        "generator": name_of_generator(),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "note": given.note,
        **measured,
    }
    result["targets"] = verdicts(result)
    result["errors"] = sum(row["errors"] for row in result["rows"])
    result["degraded"] = sum(row["degraded"] for row in result["rows"])
    print(json.dumps(result, indent=2))
    for verdict in result["targets"]:
        console.print(verdict, soft_wrap=True)
    if page := given.page or (PAGE if set(rows) == set(ROWS) else None):
        page.write_text(render(result))
    failed = {name: result[name] for name in ("errors", "degraded", "differing") if result[name]}
    if failed:
        console.print("failed:", failed, style="bold red")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
