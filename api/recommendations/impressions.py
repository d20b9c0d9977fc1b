"""Logs impressions: which items were shown to which user. They are written in the background, those of later pages of a
sequence at once.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
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

ROWS_PER_INSERT = 1_000
REQUEST_CHARACTERS_PER_INSERT = 500_000
"""Where rows wait with long requests, fewer are sent at once: no other request is answered while a batch is encoded."""
CAPACITY = 50_000
"""Impressions that are kept while the database is down. Beyond it the oldest are dropped, and the log says how many."""
MAX_REQUEST_CHARACTERS = 16_000_000
"""Of the requests that wait with their impressions. Beyond it a request is dropped, and no page can follow from it."""
DROPPED_REQUEST = ""
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
    request: str | None = None  # of `kept_request`, in `api/recommendations/pages.py`


class ImpressionLog:
    """Collects impressions and writes them in batches, so that a request only pays for an append to a list."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[ImpressionRow] = deque(maxlen=CAPACITY)
        self._request_characters = 0
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
        if len(self._waiting) == CAPACITY:
            self._lost += 1
            self._request_characters -= _size(self._waiting[0])
        if row.request is not None:
            if self._request_characters + _size(row) > MAX_REQUEST_CHARACTERS:
                row = replace(row, request=DROPPED_REQUEST)
            self._request_characters += _size(row)
        self._waiting.append(row)

    async def flush(self) -> None:
        """Write what waits. Raises what PostgreSQL raises; rows that were not written keep waiting."""
        async with self._lock:
            while self._waiting:
                batch = next_batch(self._waiting)
                self._request_characters -= sum(map(_size, batch))
                try:
                    await self._write(batch)
                except psycopg.DataError as error:  # these rows would fail again, and hold up all others
                    _LOST.inc(len(batch))
                    log.error("impressions are lost", count=len(batch), reason=str(error))
                except BaseException:
                    self._waiting.extendleft(reversed(batch))
                    self._request_characters = sum(map(_size, self._waiting))
                    raise

    async def write_page(self, row: ImpressionRow, sequence_id: UUID, number: int) -> bool:
        """Write the impression of a page that follows from an answer, before anybody is shown it.

        Returns False, and writes nothing, where the sequence has a page of this number already, or is erased.
        """
        async with self._pool.connection() as connection, connection.pipeline():
            await connection.execute(NO_ERASURE_MEANWHILE)
            values = [*_columns([row]), sequence_id, number, sequence_id]
            written = await connection.execute(_INSERT_PAGE, values)
            return await written.fetchone() is not None

    async def _turn(self) -> None:
        _WAITING.set(len(self._waiting))
        if self._lost:
            _LOST.inc(self._lost)
            log.error("impressions are lost", count=self._lost, reason="the database does not answer")
            self._lost = 0
        await self.flush()

    async def _write(self, batch: list[ImpressionRow]) -> None:
        asked = [row for row in batch if row.request is not None]
        # A pipeline sends all in one round trip and is one transaction, in which each statement sees what was committed
        # before it began.
        async with self._pool.connection() as connection, connection.pipeline():
            await connection.execute(NO_ERASURE_MEANWHILE)
            await connection.execute(_INSERT, _columns(batch))
            if asked:
                await connection.execute(_INSERT_REQUESTS, _columns(asked, _REQUEST_COLUMNS))


def next_batch(waiting: deque[ImpressionRow]) -> list[ImpressionRow]:
    """Take the oldest rows away, at least one, at most `ROWS_PER_INSERT`, without too long requests in all.

    waiting: not empty.
    """
    batch = [waiting.popleft()]
    characters = _size(batch[0])
    while waiting and len(batch) < ROWS_PER_INSERT:
        characters += _size(waiting[0])
        if characters > REQUEST_CHARACTERS_PER_INSERT:
            break
        batch.append(waiting.popleft())
    return batch


def _size(row: ImpressionRow) -> int:
    """Characters of the request."""
    return 0 if row.request is None else len(row.request)


def _columns(rows: list[ImpressionRow], names: Iterable[str] = COLUMNS) -> list[str]:
    return [text_array([_text(getattr(row, name)) for row in rows]) for name in names]


def _text(value: Any) -> str | None:
    """A value as PostgreSQL reads it from text."""
    if value is None or isinstance(value, str):
        return value
    return text_array(map(str, value)) if isinstance(value, list) else str(value)


# Arrays of arrays must be rectangular, so lists travel as text.
_SENT = ", ".join(f"%s::{'text' if type_.endswith('[]') else type_}[]" for type_ in COLUMNS.values())
_SHOWN = f"unnest({_SENT}) AS shown ({', '.join(COLUMNS)})"
_ROW = ", ".join(f"shown.{column}::{type_}" for column, type_ in COLUMNS.items())
_INSERT = f"""
INSERT INTO impressions ({", ".join(COLUMNS)})
SELECT {_ROW} FROM {_SHOWN} WHERE {may_stay_sql("shown")}
"""  # noqa: S608 - constants of this module

# An impression that was not written, because its user is erased, leaves no request either.
_REQUEST_COLUMNS = ("tenant_id", "recommendation_id", "request", "created_at")
_INSERT_REQUESTS = """
INSERT INTO recommendation_pages (tenant_id, recommendation_id, sequence_id, number, request, created_at)
SELECT asked.tenant_id, asked.recommendation_id, asked.recommendation_id, 0, asked.request, asked.created_at
FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::timestamptz[])
    AS asked (tenant_id, recommendation_id, request, created_at)
JOIN impressions AS written
    ON written.tenant_id = asked.tenant_id AND written.recommendation_id = asked.recommendation_id
"""

# The unique index on the numbers of a sequence decides between callers at the same moment. The first answer is looked
# for, since its user may have been erased and have come back.
_INSERT_PAGE = f"""
WITH shown AS (SELECT * FROM {_SHOWN}), numbered AS (
    INSERT INTO recommendation_pages (tenant_id, recommendation_id, sequence_id, number, created_at)
    SELECT shown.tenant_id, shown.recommendation_id, %s::uuid, %s::integer, shown.created_at FROM shown
    WHERE {may_stay_sql("shown")} AND EXISTS (
        SELECT FROM impressions AS opening
        WHERE opening.tenant_id = shown.tenant_id AND opening.recommendation_id = %s::uuid
    )
    ON CONFLICT (tenant_id, sequence_id, number) DO NOTHING
    RETURNING recommendation_id
)
INSERT INTO impressions ({", ".join(COLUMNS)})
SELECT {_ROW} FROM shown JOIN numbered USING (recommendation_id)
RETURNING 1
"""  # noqa: S608 - constants of this module
