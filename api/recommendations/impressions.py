"""What was shown to whom, written behind the requests."""

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
"""Answers that are kept while the database is away; past it the oldest go, and the log says how many."""
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
class Shown:
    """One answer."""

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
    """Gathers answers and writes them together: a request pays for an append to a list."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[Shown] = deque(maxlen=CAPACITY)
        self._lost = 0
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ImpressionLog"]:
        """Inside the block, what waits is written every `FLUSH_SECONDS`; leaving it writes the rest, if it can."""
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

    def record(self, shown: Shown) -> None:
        self._lost += len(self._waiting) == CAPACITY
        self._waiting.append(shown)

    async def flush(self) -> None:
        """Write what waits. Raises what PostgreSQL raises; what was not written waits on."""
        async with self._lock:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    await self._write(batch)
                except psycopg.DataError as error:  # it would fail again and hold up all the others
                    log.error("impressions are lost", count=len(batch), reason=str(error))
                except BaseException:
                    self._waiting.extendleft(reversed(batch))
                    raise

    async def _turn(self) -> None:
        if self._lost:
            log.error("impressions are lost", count=self._lost, reason="the database does not answer")
            self._lost = 0
        await self.flush()

    async def _write(self, batch: list[Shown]) -> None:
        async with self._pool.connection() as connection:
            gone = await erased(connection, {(shown.tenant_id, shown.user_id) for shown in batch})
            async with (
                connection.cursor() as cursor,
                cursor.copy(f"COPY impressions ({', '.join(COLUMNS)}) FROM STDIN") as copy,
            ):
                copy.set_types(list(COLUMNS.values()))
                for shown in batch:
                    if _may_stay(shown, gone):
                        await copy.write_row(tuple(getattr(shown, column) for column in COLUMNS))


def _may_stay(shown: Shown, erased_at: Mapping[tuple[str, str], datetime | None]) -> bool:
    """Not of a user that was erased after it was shown, or that was and has not come back."""
    user = (shown.tenant_id, shown.user_id)
    if user not in erased_at:
        return True
    moment = erased_at[user]
    return moment is not None and shown.created_at > moment
