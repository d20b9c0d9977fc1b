"""The clock of a program moves under load, by libfaketime: an API's, a model server's, a pipeline's.

The machine's own clock is never touched. The monotonic clock goes on, as where an operator or NTP sets the time.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from configs.local.processes import shared_environment
from tests.benchmarks.faults.load import FaultRow, under_load
from tests.benchmarks.faults.tenants import RUN_SECONDS, release_is_right, small_tenant, start_run
from tests.benchmarks.reliability.api_processes import api_beside
from tests.benchmarks.running_demo import RunningDemo, Tenant
from tests.fixtures.platform import ROOT, answers, free_ports, wait_until

CHANGES = (("a day ahead", "+1d", 24), ("an hour back", "-1h", -1))
"""How it is called, what libfaketime reads, and hours."""


def moved_clock(demo: RunningDemo, tenant: Tenant, seconds: float, **_: Any) -> list[FaultRow]:
    """Each program's clock goes a day ahead, and another's an hour back, under load."""
    library = faketime_library()
    if library is None:
        return [
            FaultRow(
                "clock", notes={"not run": "no libfaketime: install the package faketime or the wheel libfaketime"}
            )
        ]
    found = []
    for name, change, hours in CHANGES:
        for program in (_api_with_clock, _model_server_with_clock, _pipeline_with_clock):
            with tempfile.TemporaryDirectory() as folder:
                clock = _Clock(Path(folder, "clock"), library, change, hours, seconds)
                found.append(program(demo, tenant, name, clock))
    return found


@dataclass(frozen=True)
class _Clock:
    """The clock of programs that have its environment: right until `move` is called."""

    file: Path
    library: Path
    change: str
    hours: float
    seconds: float  # that it stays moved

    @property
    def environment(self) -> dict[str, str]:
        self.file.write_text("+0")
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def move(self) -> float:
        self.file.write_text(self.change)
        time.sleep(self.seconds)
        return time.monotonic()

    def has_moved(self, url: str) -> bool:
        """Whether answers from there have a date that says so."""
        said = parsedate_to_datetime(httpx.get(url, timeout=60).headers["date"])
        return abs((said - datetime.now(UTC)).total_seconds() / 3600 - self.hours) < 0.1


def _api_with_clock(demo: RunningDemo, tenant: Tenant, name: str, clock: _Clock) -> FaultRow:
    port = free_ports(1)[0]
    with api_beside(demo, port, **clock.environment):
        row = under_load(f"clock of the API {name}", demo, tenant, clock.move, url=f"http://127.0.0.1:{port}")
        row.promises["the clock moved"] = clock.has_moved(f"http://127.0.0.1:{port}/health")
    return row


def _model_server_with_clock(demo: RunningDemo, tenant: Tenant, name: str, clock: _Clock) -> FaultRow:
    """A model server beside the demo's, and an API that asks it."""
    api_port, port = free_ports(2)
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, **shared_environment(demo.paths), "SERVING_PORT": str(port), **clock.environment}
    with (demo.paths.logs / f"bench-serving-{port}.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "serving", "serve"],
            cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until("a model server", lambda: answers(f"{url}/readyz"), 300)
        with api_beside(demo, api_port, SERVING_URL=url):
            api_url = f"http://127.0.0.1:{api_port}"
            row = under_load(f"clock of the model server {name}", demo, tenant, clock.move, url=api_url)
            row.promises["the clock moved"] = clock.has_moved(f"{url}/readyz")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    return row


def _pipeline_with_clock(demo: RunningDemo, tenant: Tenant, name: str, clock: _Clock) -> FaultRow:
    """A tenant's first run, whose clock moves while it works, and a second one by the right clock."""
    own = small_tenant(demo)
    status: list[int] = []

    def trouble() -> float:
        run = start_run(demo, own, environment=clock.environment)
        moved = clock.move()
        status.append(run.wait(RUN_SECONDS))
        return moved

    row = under_load(f"clock of a pipeline {name}", demo, tenant, trouble)
    status.append(start_run(demo, own, ["--force"]).wait(RUN_SECONDS))
    row.promises |= {
        "the run succeeds": status[0] == 0,
        "the next run succeeds by the right clock": status[1] == 0,
        **release_is_right(demo, own),
    }
    return row


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
