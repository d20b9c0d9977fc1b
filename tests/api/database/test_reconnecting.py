"""The pool after an outage: however long it was, the next attempt to connect is near."""

import asyncio
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from api.database.engine import Database
from tests.fixtures.platform import free_ports

LONGEST_PAUSE = 2.0
ATTEMPTS = 10


def test_the_pause_between_attempts_to_connect_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    original, enough = AsyncConnectionPool.schedule_task, asyncio.Event()

    async def at_once(pool: AsyncConnectionPool, task: Any, delay: float) -> None:
        if type(task).__name__ == "AddConnection":
            pauses.append(delay)
            if len(pauses) >= ATTEMPTS:
                enough.set()
                return
            delay = 0.0
        await original(pool, task, delay)

    monkeypatch.setattr(AsyncConnectionPool, "schedule_task", at_once)

    async def outage() -> None:
        database = Database(f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/nothing")
        await database.open()
        await asyncio.wait_for(enough.wait(), 60)
        await database.close()

    asyncio.run(outage())
    assert max(pauses) <= LONGEST_PAUSE
