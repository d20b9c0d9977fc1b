"""Logs impressions: which items were shown to which user. They are written in the background."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import structlog
from prometheus_client import Counter, Gauge

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.database.erasure_lock import NO_ERASURE_MEANWHILE
from api.database.prepared import text_array
from api.erasure.repository import may_stay_sql

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
    "scenario": "text",
    "scenario_version": "integer",
    "holdout": "boolean",
    "milliseconds": "float4",
}

_LOST = Counter("recommendai_impressions_lost_total", "Impressions that could not be written and are gone")
_WAITING = Gauge("recommendai_impressions_waiting", "Impressions that wait to be written", multiprocess_mode="sum")

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
    scenario: str | None = None
    scenario_version: int | None = None
    holdout: bool = False
    milliseconds: float | None = None


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
                    _LOST.inc(len(batch))
                    log.error("impressions are lost", count=len(batch), reason=str(error))
                except BaseException:
                    self._waiting.extendleft(reversed(batch))
                    raise

    async def _turn(self) -> None:
        _WAITING.set(len(self._waiting))
        if self._lost:
            _LOST.inc(self._lost)
            log.error("impressions are lost", count=self._lost, reason="the database does not answer")
            self._lost = 0
        await self.flush()

    async def _write(self, batch: list[ImpressionRow]) -> None:
        columns = [text_array([_text(getattr(row, column)) for row in batch]) for column in COLUMNS]
        # A pipeline sends all in one round trip and is one transaction, in which each statement sees what was committed
        # before it began.
        async with self._pool.connection() as connection, connection.pipeline():
            await connection.execute(NO_ERASURE_MEANWHILE)
            await connection.execute(_INSERT, columns)


def _text(value: Any) -> str | None:
    """A value as PostgreSQL reads it from text."""
    if value is None or isinstance(value, str):
        return value
    return text_array(map(str, value)) if isinstance(value, list) else str(value)


# Arrays of arrays must be rectangular, so lists travel as text.
_SENT = ", ".join(f"%s::{'text' if type_.endswith('[]') else type_}[]" for type_ in COLUMNS.values())
_INSERT = f"""
INSERT INTO impressions ({", ".join(COLUMNS)})
SELECT {", ".join(f"shown.{column}::{type_}" for column, type_ in COLUMNS.items())}
FROM unnest({_SENT}) AS shown ({", ".join(COLUMNS)})
WHERE {may_stay_sql("shown")}
"""  # noqa: S608 - constants of this module
