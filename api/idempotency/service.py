"""Kept answers are forgotten when their day is over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from api.background import end
from api.database.engine import Pool
from api.idempotency.repository import forget_expired

EVERY_SECONDS = 600.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def forgetting(pool: Pool) -> AsyncIterator[None]:
    """While inside, what is older than a day is deleted every ten minutes."""
    task = asyncio.create_task(_forget_forever(pool))
    try:
        yield
    finally:
        await end(task)


async def _forget_forever(pool: Pool) -> None:
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            log.debug("kept answers are forgotten", count=await forget_expired(pool))
        except (psycopg.Error, PoolTimeout) as error:
            log.warning("kept answers were not forgotten", error=repr(error))
