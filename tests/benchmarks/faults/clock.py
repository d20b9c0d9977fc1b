"""The clock of an API process moves under load, by libfaketime. The machine's own clock is never touched."""

import os
import tempfile
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.faults.load import FaultRow, under_load
from tests.benchmarks.reliability.api_processes import api_beside
from tests.benchmarks.running_demo import RunningDemo, Tenant
from tests.fixtures.platform import free_ports


def moved_clock(demo: RunningDemo, tenant: Tenant, seconds: float, **_: Any) -> list[FaultRow]:
    """An API whose clock goes a day ahead, and one whose clock goes back an hour, under load (libfaketime).

    The monotonic clock goes on, as it does where an operator or NTP sets the time.
    """
    library = faketime_library()
    if library is None:
        return [
            FaultRow(
                "clock", notes={"not run": "no libfaketime: install the package faketime or the wheel libfaketime"}
            )
        ]
    found = []
    for name, change, expected in (("clock a day ahead", "+1d", 24), ("clock an hour back", "-1h", -1)):
        with tempfile.TemporaryDirectory() as folder:
            clock = Path(folder, "clock")
            clock.write_text("+0")
            port = free_ports(1)[0]
            environment = {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }

            def trouble(clock: Path = clock, change: str = change) -> float:
                clock.write_text(change)
                time.sleep(seconds)
                return time.monotonic()

            with api_beside(demo, port, **environment):
                row = under_load(name, demo, tenant, trouble, url=f"http://127.0.0.1:{port}")
                said = parsedate_to_datetime(httpx.get(f"http://127.0.0.1:{port}/health").headers["date"])
            hours = (said - datetime.now(UTC)).total_seconds() / 3600
            row.promises["the clock moved"] = abs(hours - expected) < 0.1
            found.append(row)
    return found


def faketime_library() -> Path | None:
    """libfaketime of Debian's package or of the wheel, or where LIBFAKETIME says; None where there is none."""
    given = os.environ.get("LIBFAKETIME")
    spec = find_spec("libfaketime")
    wheel = [Path(place) for place in (spec.submodule_search_locations or [])] if spec is not None else []
    places = [
        *([Path(given)] if given else []),
        *(place / "vendor/libfaketime/src/libfaketime.so.1" for place in wheel),
        *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
    ]
    return next((place for place in places if place.exists()), None)
