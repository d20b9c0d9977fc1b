"""Counts are added to the database once, also when the connection breaks on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from api.database.engine import Connection, Database, Pool
from api.metering.meter import Meter
from api.tenants.problems import TenantGone


class Breaking:
    """A pool whose connections are lost: before anything is sent, or when the answer is awaited."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.lost_before = 0
        self.lost_after = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        if self.lost_before:
            self.lost_before -= 1
            raise psycopg.OperationalError("the server closed the connection")
        async with self._pool.connection() as connection:
            yield connection
        if self.lost_after:
            self.lost_after -= 1
            raise psycopg.OperationalError("the server closed the connection")


@pytest.fixture
def metered(database_url: str, tenants: Any) -> Callable[[Callable[[Meter, Breaking], Any]], Any]:
    """Runs something with a meter of this test's database and the pool that it goes through."""

    def metered(work: Callable[[Meter, Breaking], Any]) -> Any:
        async def run() -> Any:
            database = Database(database_url, pool_min=1)
            await database.open()
            try:
                pool = Breaking(database.pool)
                return await work(Meter(pool), pool)
            finally:
                await database.close()

        return asyncio.run(run())

    tenants.create("acme", plan="free")
    return metered


def units(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT coalesce(sum(units), 0)::int FROM usage_cycles").fetchone()
    return 0 if row is None else int(row[0])


def test_what_comes_while_a_flush_waits_is_for_the_next_one(metered: Any, database_url: str) -> None:
    """Else a flush under load would not end before the load does."""

    async def work(meter: Meter, pool: Breaking) -> None:
        terms = await meter.admit("acme")
        meter.count(terms, 3)
        await meter.flush()
        with psycopg.connect(database_url) as other:
            other.execute("SELECT FROM usage_cycles FOR UPDATE")
            meter.count(terms, 4)
            flush = asyncio.create_task(meter.flush())
            await asyncio.sleep(0.3)
            assert not flush.done()
            meter.count(terms, 5)
        await flush
        assert units(database_url) == 7
        await meter.flush()
        assert units(database_url) == 12

    metered(work)


def test_counts_of_a_flush_whose_answer_was_lost_are_added_once(metered: Any, database_url: str) -> None:
    async def work(meter: Meter, pool: Breaking) -> None:
        terms = await meter.admit("acme")
        meter.count(terms, 3)
        pool.lost_after = 2
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError):
                await meter.flush()
            meter.count(terms, 1)  # what comes meanwhile waits its turn
        await meter.flush()
        meter.count(terms, 1)
        await meter.flush()

    metered(work)
    assert units(database_url) == 6


def test_counts_that_never_got_there_are_sent_again(metered: Any, database_url: str) -> None:
    async def work(meter: Meter, pool: Breaking) -> None:
        meter.count(await meter.admit("acme"), 3)
        pool.lost_before = 1
        with pytest.raises(psycopg.OperationalError):
            await meter.flush()
        await meter.flush()

    metered(work)
    assert units(database_url) == 3


def test_flushes_at_once_add_up(metered: Any, database_url: str) -> None:
    async def work(meter: Meter, _: Breaking) -> None:
        terms = await meter.admit("acme")
        for _ in range(50):
            meter.count(terms, 2)
            await asyncio.gather(meter.flush(), meter.flush())

    metered(work)
    assert units(database_url) == 100


def test_what_is_not_yet_written_counts_at_the_gate(metered: Any) -> None:
    async def work(meter: Meter, pool: Breaking) -> list[bool]:
        admitted = []
        pool.lost_before = 0
        for _ in range(1_002):
            try:
                meter.count(await meter.admit("acme"), 1)
                admitted.append(True)
            except Exception as refusal:
                assert getattr(refusal, "status_code", None) == 402
                admitted.append(False)
            if len(admitted) % 300 == 0:
                await meter.flush()
        return admitted

    assert metered(work) == [True] * 1_000 + [False] * 2


def test_while_the_database_is_away_requests_are_admitted_and_their_counts_wait(
    metered: Any, database_url: str
) -> None:
    async def work(meter: Meter, pool: Breaking) -> None:
        async with meter.running():
            meter.count(await meter.admit("acme"), 1)
            pool.lost_before = 3  # of the next ticks
            while pool.lost_before:
                meter.count(await meter.admit("acme"), 1)
                await asyncio.sleep(0.1)
                counted.append(1)

    counted = [1]
    metered(work)
    assert units(database_url) == len(counted) > 1


def test_a_tenant_that_is_none_is_refused_as_its_credential_would_be(metered: Any) -> None:
    async def work(meter: Meter, _: Breaking) -> None:
        with pytest.raises(TenantGone):
            await meter.admit("nobody")

    metered(work)
