"""The API is told to end under load, and two API processes behind one port are restarted in turn."""

import configparser
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from tests.benchmarks.reliability.answers import counts, milliseconds, recommendations, traffic
from tests.benchmarks.running_demo import RunningDemo, Tenant, unique
from tests.fixtures.platform import ROOT, answers, free_ports, wait_until

USERS = 200


def drained(demo: RunningDemo, tenant: Tenant, **_: Any) -> dict[str, Any]:
    """The supervisor stops the API under load. Each answer that a client got is counted, its impression written."""
    prefix = unique("drained")
    users = [f"{prefix}-{number}" for number in range(USERS)]
    units = _units(demo, tenant)
    try:
        with traffic(demo.api_url, tenant.headers, recommendations(users)) as seen:
            time.sleep(3)
            began = time.monotonic()
            demo.control("stop", "api")
            took = time.monotonic() - began
    finally:
        demo.control("start", "api")
        wait_until("the API", lambda: answers(f"{demo.api_url}/health/ready"))
    answered = sum(answer.status == 200 for answer in seen.answers)
    written, counted = _impressions(demo, tenant, users), _units(demo, tenant) - units
    found = counts(seen)
    return {
        **found,
        "seconds_to_end": round(took, 2),
        "impressions": written,
        "units": counted,
        "verdicts": {
            "none cut off": found["cut_off"] == 0 and found["status_503"] + found["other"] == 0,
            "every answer's impression written, and no other": written == answered,
            "every answer counted, and no other": counted == answered,
        },
    }


def rolling(demo: RunningDemo, tenant: Tenant, **_: Any) -> dict[str, Any]:
    """A balancer spreads connections over two processes; each in turn leaves it, ends, starts, and comes back."""
    ports = free_ports(3)
    with ExitStack() as stack:
        processes = [stack.enter_context(api_beside(demo, port)) for port in ports[:2]]
        balancer = stack.enter_context(_balancer(ports[2], ports[:2]))
        url = f"http://127.0.0.1:{ports[2]}"
        with traffic(url, tenant.headers, recommendations(demo.users(tenant, USERS))) as seen:
            began = time.monotonic()
            for process in processes:
                time.sleep(2)
                assert balancer.stdin is not None
                balancer.stdin.write(f"out {process.port}\n".encode())
                balancer.stdin.flush()
                time.sleep(0.5)
                process.restart()
                balancer.stdin.write(f"in {process.port}\n".encode())
                balancer.stdin.flush()
            time.sleep(2)
            took = time.monotonic() - began
    found = counts(seen)
    return {
        **found,
        **milliseconds(seen.answers),
        "seconds": round(took, 1),
        "verdicts": {"none failed": found["from_models"] + found["degraded"] == found["answers"]},
    }


class ApiBeside:
    """`python -m api serve` with the settings of the demo's API and some others, on a port of its own.

    It shows no metrics, because their port is the demo's API's.
    """

    def __init__(self, demo: RunningDemo, port: int, changes: dict[str, str], before: Sequence[str] = ()) -> None:
        """before: words of a command that runs the API's command in turn."""
        self.port = port
        self._log = (demo.paths.logs / f"bench-api-{port}.log").open("ab")
        settings = _environment_of_api(demo)
        settings.pop("METRICS_PORT", None)
        self._environment = {**os.environ, **settings, "API_PORT": str(port), **changes}
        self._before = list(before)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        command = [*self._before, sys.executable, "-m", "api", "serve"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=self._log, stderr=self._log)
        wait_until("an API process", lambda: answers(f"http://127.0.0.1:{self.port}/health/ready"))

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()


@contextmanager
def api_beside(demo: RunningDemo, port: int, before: Sequence[str] = (), **environment: str) -> Iterator[ApiBeside]:
    """Another API process beside the demo's, with these settings besides, until the block ends."""
    process = ApiBeside(demo, port, environment, before)
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def _balancer(port: int, backends: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.benchmarks.reliability.balancer", str(port), *map(str, backends)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    try:
        wait_until("the balancer", lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield process
    finally:
        process.terminate()
        process.wait()


def _environment_of_api(demo: RunningDemo) -> dict[str, str]:
    """The variables that the supervisor gives the API."""
    parser = configparser.RawConfigParser()
    parser.read(demo.paths.root / "supervisord.conf")
    text = parser["program:api"]["environment"].replace("%%", "%")
    split = shlex.shlex(text, posix=True)
    split.whitespace, split.whitespace_split = ",", True
    return dict(pair.split("=", 1) for pair in split)


def _impressions(demo: RunningDemo, tenant: Tenant, users: list[str]) -> int:
    with psycopg.connect(demo.database_url) as connection:
        query = "SELECT count(*) FROM impressions WHERE tenant_id = %s AND user_id = ANY(%s)"
        row = connection.execute(query, [tenant.id, users]).fetchone()
    assert row is not None
    return int(row[0])


def _units(demo: RunningDemo, tenant: Tenant) -> int:
    """What the tenant has used by now, once everything that was counted is written."""
    time.sleep(1.5)
    with psycopg.connect(demo.database_url) as connection:
        query = "SELECT coalesce(sum(units), 0) FROM usage_cycles WHERE tenant_id = %s"
        row = connection.execute(query, [tenant.id]).fetchone()
    assert row is not None
    return int(row[0])
