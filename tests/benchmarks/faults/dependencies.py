"""What the API asks is exhausted or hangs: PostgreSQL's connections, Redis, Stripe."""

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from configs.local.launch import survivors
from configs.local.postgres_cluster import Cluster
from tests.benchmarks.faults.load import FaultRow, under_load
from tests.benchmarks.reliability.api_processes import api_beside
from tests.benchmarks.running_demo import RunningDemo, Tenant
from tests.fixtures.platform import free_ports
from tests.fixtures.redis import running_redis

MOST_CONNECTIONS = 200
CHECKOUT = "/api/billing/checkout"
"""A route that asks Stripe."""
SUBSCRIPTION = {"planId": "plan-growth", "interval": "monthly"}


def no_connections(demo: RunningDemo, tenant: Tenant, seconds: float, **_: Any) -> list[FaultRow]:
    """Others hold every connection that PostgreSQL gives, the API's too: those are ended and taken."""
    record = demo.paths.root / "postgres.json"
    url = Cluster.load(record).superuser_url

    def trouble() -> float:
        with ExitStack() as stack, psycopg.connect(url, autocommit=True) as first:
            _hold_all(url, stack)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                first.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'recommendai-api' OR usename = 'recommendai_app'"
                )
                _hold_all(url, stack)
                time.sleep(0.2)
        return time.monotonic()

    return [under_load("PostgreSQL out of connections", demo, tenant, trouble)]


def _hold_all(url: str, stack: ExitStack) -> None:
    """Connect until the server refuses."""
    for _ in range(MOST_CONNECTIONS):
        try:
            stack.enter_context(psycopg.connect(url, connect_timeout=5))
        except psycopg.OperationalError:
            return
    raise RuntimeError(f"PostgreSQL gives more than {MOST_CONNECTIONS} connections")


def hung_redis(demo: RunningDemo, tenant: Tenant, seconds: float, **_: Any) -> list[FaultRow]:
    """An API that counts in a Redis, which is stopped (SIGSTOP): it accepts connections and answers none."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_redis(Path(folder)) as server,
        api_beside(demo, port := free_ports(1)[0], REDIS_URL=server.url),
    ):

        def trouble() -> float:
            server.hang()
            time.sleep(seconds)
            server.resume()
            return time.monotonic()

        return [under_load("Redis hung", demo, tenant, trouble, url=f"http://127.0.0.1:{port}")]


def hung_stripe(demo: RunningDemo, tenant: Tenant, seconds: float, **_: Any) -> list[FaultRow]:
    """The stand-in is stopped (SIGSTOP) while an admin asks for what only Stripe knows."""
    admin = demo.admin()

    def trouble() -> float:
        victims = survivors(f"stripe@{demo.paths.root}")
        if not victims:
            raise RuntimeError("no stand-in for Stripe runs")
        for victim in victims:
            os.kill(victim, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            for victim in victims:
                os.kill(victim, signal.SIGCONT)
        return time.monotonic()

    before = _checkout(demo, admin)
    with _asking_for_checkouts(demo, admin) as seen:
        row = under_load("Stripe hung", demo, tenant, trouble)
    after = _checkout(demo, admin)
    row.notes["checkout"] = {"before": before, "during": dict(seen), "after": after}
    row.unavailable += seen[503]
    row.server_errors += sum(count for status, count in seen.items() if status >= 500 and status != 503)
    row.promises["no 5xx but 503"] = row.server_errors == 0
    row.promises["a checkout is a 503 meanwhile, and possible again"] = seen[503] > 0 and before == after == 200
    return [row]


def _checkout(demo: RunningDemo, admin: dict[str, str]) -> int:
    """The status of an answer to the admin, who wants to subscribe."""
    return httpx.post(demo.api_url + CHECKOUT, json=SUBSCRIPTION, headers=admin, timeout=60).status_code


@contextmanager
def _asking_for_checkouts(demo: RunningDemo, admin: dict[str, str]) -> Iterator[Counter[int]]:
    """An admin who wants to subscribe until the block ends, and the statuses of the answers."""
    seen: Counter[int] = Counter()
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.2):
            seen[_checkout(demo, admin)] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
