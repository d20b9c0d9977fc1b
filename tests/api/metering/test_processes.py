"""Two API processes and many clients: counts are exact, a spent budget holds in both, a killed process charges nobody
for more than it answered."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.api.conftest import Tenants
from tests.fixtures.live import ApiProcess, api_process
from tests.fixtures.platform import wait_until

CLIENTS, EACH = 64, 8
LIKE = {"userId": "ann", "itemId": "tea", "interactionType": "like"}


@pytest.fixture
def processes(database_url: str, tmp_path: Path) -> Iterator[list[ApiProcess]]:
    with ExitStack() as stack:
        settings = {"DATABASE_POOL_MAX": "8", "LOG_LEVEL": "WARNING"}
        yield [stack.enter_context(api_process(database_url, tmp_path, **settings)) for _ in range(2)]


class Shop:
    """A tenant and its figures in the database."""

    def __init__(self, url: str, tenants: Tenants, plan: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.key = tenants.key(tenants.create(plan, plan=plan), rate_limit=0)
        self.connection.execute(
            "INSERT INTO items (tenant_id, version, id, metadata) VALUES (%s, 0, 'tea', '{}')", [plan]
        )
        self._tenant = plan

    def units(self) -> int:
        row = self.connection.execute(
            "SELECT coalesce(sum(units), 0)::int FROM usage_cycles WHERE tenant_id = %s", [self._tenant]
        ).fetchone()
        return 0 if row is None else int(row[0])

    def interactions(self) -> int:
        row = self.connection.execute(
            "SELECT count(*) FROM interactions WHERE tenant_id = %s", [self._tenant]
        ).fetchone()
        return 0 if row is None else int(row[0])

    def record(self, process: ApiProcess, requests: int) -> list[int]:
        """The statuses of so many requests of one client; those that nobody answered are left out."""
        found = []
        with httpx.Client(base_url=process.url, headers=self.key, timeout=60) as client:
            for _ in range(requests):
                try:
                    found.append(client.post("/api/v1/interactions", json=LIKE).status_code)
                except httpx.TransportError:
                    break
        return found


def test_counts_are_exact_and_a_spent_budget_holds_in_both_processes(
    processes: list[ApiProcess], database_url: str, tenants: Tenants
) -> None:
    many = Shop(database_url, tenants, "unlimited")
    with ThreadPoolExecutor(CLIENTS) as threads:
        answers = threads.map(lambda number: many.record(processes[number % 2], EACH), range(CLIENTS))
        assert [status for client in answers for status in client] == [201] * CLIENTS * EACH
    wait_until("the counts to be written", lambda: many.units() >= CLIENTS * EACH)
    time.sleep(1)  # nothing comes after them
    assert many.units() == many.interactions() == CLIENTS * EACH

    free = Shop(database_url, tenants, "free")
    one, other = processes
    assert free.record(other, 1) == [201]  # so that it knows how the tenant stood
    wait_until("that to be written", lambda: free.units() == 1)
    free.connection.execute("UPDATE usage_cycles SET units = 990 WHERE tenant_id = 'free'")
    assert free.record(one, 12) == [201] * 10 + [402] * 2
    wait_until("the other process to refuse too", lambda: free.record(other, 1) == [402])
    assert free.record(one, 1) == [402]
    wait_until("the counts to be written", lambda: free.units() == 990 + free.interactions() - 1)


def test_a_killed_process_charges_for_no_request_that_it_did_not_answer(
    processes: list[ApiProcess], database_url: str, tenants: Tenants
) -> None:
    shop = Shop(database_url, tenants, "unlimited")
    victim, survivor = processes
    with ThreadPoolExecutor(9) as threads:
        clients = [threads.submit(shop.record, victim, 10_000) for _ in range(8)]
        other = threads.submit(shop.record, survivor, 20)
        wait_until("something to be counted", lambda: shop.units() > 100)
        victim.process.kill()
        answered = sum(len(client.result()) for client in clients)
        kept = len(other.result())
    wait_until("the survivor's counts to be written", lambda: shop.units() > kept)
    assert kept == 20
    assert 100 < shop.units() <= answered + kept <= shop.interactions()
