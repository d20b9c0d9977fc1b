"""Logs impressions: which items were shown to which user. They are written in the background."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
import structlog

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.erasure.repository import erased

BATCH = 1_000
CAPACITY = 50_000
"""Impressions that are kept while the database is down. Beyond it the oldest are dropped, and the log says how many."""
FLUSH_SECONDS = 0.25
RETRY_SECONDS = 1.0
COLUMNS = {
    "recommendation_id": "uuid",
    "tenant_id": "text",
    "user_id": "text",
    "algorithm": "text",
    "release": "text",
    "degraded": "text",
    "item_ids": "text[]",
    "scores": "float4[]",
    "created_at": "timestamptz",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ImpressionRow:
    """One answer that was shown: a row of `impressions` that is to be written."""

    recommendation_id: UUID
    tenant_id: str
    user_id: str
    algorithm: str
    release: str | None
    degraded: str | None
    item_ids: list[str]
    scores: list[float]
    created_at: datetime


class ImpressionLog:
    """Collects impressions and writes them in batches, so that a request only pays for an append to a list."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[ImpressionRow] = deque(maxlen=CAPACITY)
        self._lost = 0
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ImpressionLog"]:
        """Inside the block, what waits is written every `FLUSH_SECONDS`. On leaving, the rest is written."""
        try:
            async with PeriodicTask(
                "impressions",
                self._turn,
                FLUSH_SECONDS,
                expected=(psycopg.Error, *UNREACHABLE),
                seconds_after_failure=RETRY_SECONDS,
            ):
                yield self
        finally:
            try:
                await self.flush()
            except (psycopg.Error, *UNREACHABLE) as error:
                log.error("impressions are lost", count=len(self._waiting), reason=str(error))

    def record(self, row: ImpressionRow) -> None:
        self._lost += len(self._waiting) == CAPACITY
        self._waiting.append(row)

    async def flush(self) -> None:
        """Write what waits. Raises what PostgreSQL raises; rows that were not written keep waiting."""
        async with self._lock:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    await self._write(batch)
                except psycopg.DataError as error:  # these rows would fail again, and hold up all others
                    log.error("impressions are lost", count=len(batch), reason=str(error))
                except BaseException:
                    self._waiting.extendleft(reversed(batch))
                    raise

    async def _turn(self) -> None:
        if self._lost:
            log.error("impressions are lost", count=self._lost, reason="the database does not answer")
            self._lost = 0
        await self.flush()

    async def _write(self, batch: list[ImpressionRow]) -> None:
        async with self._pool.connection() as connection:
            gone = await erased(connection, {(row.tenant_id, row.user_id) for row in batch})
            async with (
                connection.cursor() as cursor,
                cursor.copy(f"COPY impressions ({', '.join(COLUMNS)}) FROM STDIN") as copy,
            ):
                copy.set_types(list(COLUMNS.values()))
                for row in batch:
                    if _may_stay(row, gone):
                        await copy.write_row(tuple(getattr(row, column) for column in COLUMNS))


def _may_stay(row: ImpressionRow, erased_at: Mapping[tuple[str, str], datetime | None]) -> bool:
    """False for a user who was erased after the impression, or was erased and has not come back."""
    user = (row.tenant_id, row.user_id)
    if user not in erased_at:
        return True
    moment = erased_at[user]
    return moment is not None and row.created_at > moment
