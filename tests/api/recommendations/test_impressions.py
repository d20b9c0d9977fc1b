"""Impressions are written in the background, and wait while the database does not answer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

from api.database.engine import Database
from api.recommendations.impressions import (
    REQUEST_CHARACTERS_PER_INSERT,
    ROWS_PER_INSERT,
    ImpressionLog,
    ImpressionRow,
    next_batch,
)
from api.tenants.service import delete_tenant
from tests.api.conftest import Tenants


def shown(score: float = 0.5, user: str = "ann") -> ImpressionRow:
    return ImpressionRow(uuid4(), "shop", user, "hybrid", "r1", None, ["a", "b"], [score, 0.1], datetime.now(UTC))


def with_log(url: str, work: Callable[[ImpressionLog], Awaitable[None]]) -> None:
    async def run() -> None:
        database = Database(url, pool_min=1)
        await database.open()
        try:
            await work(ImpressionLog(database.pool))
        finally:
            await database.close()

    asyncio.run(run())


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT count(*) FROM impressions").fetchone()[0]  # type: ignore[index]


def test_what_waits_is_written_when_the_log_closes(database_url: str) -> None:
    async def work(log: ImpressionLog) -> None:
        async with log.running():
            for _ in range(ROWS_PER_INSERT + 1):
                log.record(shown())

    with_log(database_url, work)
    assert count(database_url) == ROWS_PER_INSERT + 1


def test_long_requests_are_written_few_at_once_and_short_ones_together() -> None:
    def rows(*sizes: int) -> deque[ImpressionRow]:
        return deque(replace(shown(), request="x" * size) for size in sizes)

    most = REQUEST_CHARACTERS_PER_INSERT
    waiting = rows(most + 1, most - 1, 1, 1, *[0] * ROWS_PER_INSERT)
    batches = []
    while waiting:
        batches.append([len(row.request or "") for row in next_batch(waiting)])
    assert batches == [[most + 1], [most - 1, 1], [1] + [0] * (ROWS_PER_INSERT - 1), [0]]


def test_what_could_not_be_written_waits_for_the_database(database_url: str) -> None:
    async def work(log: ImpressionLog) -> None:
        log.record(shown())
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("ALTER TABLE impressions RENAME TO away")
            with pytest.raises(psycopg.errors.UndefinedTable):
                await log.flush()
            connection.execute("ALTER TABLE away RENAME TO impressions")
        log.record(shown())
        await log.flush()

    with_log(database_url, work)
    assert count(database_url) == 2


def test_a_row_that_cannot_be_stored_does_not_hold_up_the_next(database_url: str) -> None:
    async def work(log: ImpressionLog) -> None:
        log.record(shown(user="a\0b"))
        await log.flush()
        log.record(shown())
        await log.flush()

    with_log(database_url, work)
    assert count(database_url) == 1


def test_what_waits_when_its_tenant_is_deleted_is_not_written(tenants: Tenants, database_url: str) -> None:
    tenants.create("shop")
    tenants.create("books")

    async def work(log: ImpressionLog) -> None:
        log.record(shown())
        log.record(replace(shown(), tenant_id="books"))
        await asyncio.to_thread(tenants.run, lambda session: delete_tenant(session, "shop"))
        await log.flush()

    with_log(database_url, work)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT tenant_id FROM impressions").fetchall() == [("books",)]
