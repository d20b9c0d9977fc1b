"""Prepared statements over borrowed connections, against a real PostgreSQL and in the API's event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
import uvloop
from psycopg_pool import PoolTimeout

from api.database.engine import MAX_BORROWED, UNREACHABLE, Database
from api.database.prepared import fetch_with, text_array
from tests.fixtures.postgres import gone_away

ECHO = "SELECT id, place FROM unnest($1::text[]) WITH ORDINALITY AS sent (id, place) ORDER BY place"
TYPES = """
SELECT $1::bigint, $1::text, $1::int = 5, ARRAY[$1, NULL]::text[], $1::float8 / 2, NULL::text, '\\x00ff'::bytea,
    '2025-01-15T10:30:00Z'::timestamptz, '0198c0de-0000-7000-8000-000000000000'::uuid, '{"a": 1}'::jsonb
"""
PROCESS, SLEEP = "SELECT pg_backend_pid()", "SELECT pg_sleep($1::float8)::text"
STRINGS = ["", "a", '"', "\\", '\\"', "{}", "NULL", "null", ",", " ", "ü🎬", "a\nb", "'", None]

Scenario = Callable[[Database], Awaitable[None]]


def play(url: str, scenario: Scenario, **sizes: int) -> None:
    async def run() -> None:
        database = Database(url, **{"pool_min": 1, **sizes})
        await database.open()
        try:
            await asyncio.wait_for(scenario(database), 60)
        finally:
            await database.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def terminate(url: str, pid: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_text_of_any_form_passes_through_an_array(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        rows = await database.pool.fetch(ECHO, text_array(STRINGS))
        assert [row[0] for row in rows] == STRINGS
        assert await database.pool.fetch(ECHO, text_array([])) == []

    play(database_url, scenario)


def test_rows_have_the_types_that_psycopg_gives_them(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        async with database.pool.connection() as connection:
            expected = await fetch_with(connection, TYPES, ["5"])
        for _ in range(2):
            assert await database.pool.fetch(TYPES, "5") == expected
        assert [type(value) for value in expected[0]][:3] == [int, str, bool]

    play(database_url, scenario)


def test_few_connections_serve_many_callers_and_are_kept(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        for _ in range(3):
            rows = await asyncio.gather(*(database.pool.fetch(PROCESS) for _ in range(50)))
            used = {pid for ((pid,),) in rows}
            assert len(used) <= MAX_BORROWED
        assert await database.pool.fetch(PROCESS) in rows

    play(database_url, scenario)


def test_each_caller_gets_its_own_rows(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        texts = [str(number) * number for number in range(200)]
        rows = await asyncio.gather(*(database.pool.fetch(ECHO, text_array([text])) for text in texts))
        assert [row[0][0] for row in rows] == texts

    play(database_url, scenario)


def test_values_larger_than_a_socket_takes_at_once_arrive_whole(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        large = "x" * 20_000_000
        (row,) = await database.pool.fetch("SELECT length($1::text), $1::text", large)
        assert row == (len(large), large)

    play(database_url, scenario)


def test_a_refused_statement_costs_nobody_else_anything(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        (before,) = await database.pool.fetch(PROCESS)
        with pytest.raises(psycopg.errors.UndefinedTable):
            await database.pool.fetch("SELECT 1 FROM nowhere")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            await database.pool.fetch(TYPES, "five")
        with pytest.raises(psycopg.DataError):
            await database.pool.fetch(TYPES, "a\0b")
        assert await database.pool.fetch(PROCESS) == [before]

    play(database_url, scenario)


def test_a_connection_that_ends_while_nobody_uses_it_is_replaced(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        ((pid,),) = await database.pool.fetch(PROCESS)
        await asyncio.to_thread(terminate, database_url, pid)
        await asyncio.sleep(0.2)
        ((other,),) = await database.pool.fetch(PROCESS)
        assert other != pid

    play(database_url, scenario)


def test_a_connection_that_ends_during_a_statement_fails_that_caller_only(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        ((pid,),) = await database.pool.fetch(PROCESS)
        sleeping = asyncio.create_task(database.pool.fetch(SLEEP, "30"))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(terminate, database_url, pid)
        with pytest.raises(UNREACHABLE):
            await sleeping
        ((other,),) = await database.pool.fetch(PROCESS)
        assert other != pid

    play(database_url, scenario)


def test_a_caller_that_gives_up_leaves_no_result_for_the_next(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        sleeping = asyncio.create_task(database.pool.fetch(SLEEP, "0.3"))
        await asyncio.sleep(0.1)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        for _ in range(5):
            assert await database.pool.fetch(ECHO, text_array(["mine"])) == [("mine", 1)]
            await asyncio.sleep(0.1)

    play(database_url, scenario)


def test_callers_wait_for_a_connection_no_longer_than_the_pool_allows(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        database._pool.timeout = 0.3
        sleeping = [asyncio.create_task(database.pool.fetch(SLEEP, "1.5")) for _ in range(MAX_BORROWED)]
        await asyncio.sleep(0.5)
        with pytest.raises(PoolTimeout):
            await database.pool.fetch(PROCESS)
        await asyncio.gather(*sleeping)
        assert await database.pool.fetch(PROCESS)

    play(database_url, scenario)


def test_others_get_connections_while_some_are_borrowed(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        sleeping = [asyncio.create_task(database.pool.fetch(SLEEP, "0.5")) for _ in range(10)]
        await asyncio.sleep(0.1)
        async with database.pool.connection() as connection:
            await connection.execute("SELECT 1")
            assert not all(task.done() for task in sleeping)
        await asyncio.gather(*sleeping)

    play(database_url, scenario, pool_max=4)


def test_a_pool_too_small_to_lend_is_used_statement_by_statement(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        rows = await asyncio.gather(*(database.pool.fetch(ECHO, text_array(STRINGS)) for _ in range(10)))
        assert all([row[0] for row in each] == STRINGS for each in rows)

    play(database_url, scenario, pool_max=1)


def test_a_database_that_comes_back_is_read_again(database_url: str, postgres_url: str) -> None:
    async def scenario(database: Database) -> None:
        assert await database.pool.fetch(PROCESS)
        database._pool.timeout = 0.5
        with gone_away(postgres_url, database_url.rsplit("/", 1)[1]):
            await asyncio.sleep(0.2)
            with pytest.raises(UNREACHABLE):
                await database.pool.fetch(PROCESS)
        database._pool.timeout = 20
        database.recheck()
        assert await database.pool.fetch(PROCESS)

    play(database_url, scenario)


def test_inside_a_transaction_its_own_connection_reads(database_url: str) -> None:
    from api.database.session import transaction

    async def scenario(database: Database) -> None:
        async with transaction(database) as session:
            inside: Any = database.joined(session).pool
            (first,) = await inside.fetch("SELECT pg_current_xact_id()::text, pg_backend_pid()")
            (second,) = await inside.fetch("SELECT pg_current_xact_id()::text, pg_backend_pid()")
            assert first == second

    play(database_url, scenario)
