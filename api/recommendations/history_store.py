"""Keeps the histories that reads had to build, for the next reads. They are written in the background.

A history is kept when it is built for the second time. One that is read once between two interactions of its user would
cost a write, which is half as much as building it, and be out of date before anybody reads it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import psycopg

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.database.scope import TenantScope
from api.recommendations.history_sql import KEEP
from configs.history import HistorySettings
from feature_store.online import form_of

FLUSH_SECONDS = 0.1
MAX_ROWS = 64
"""Histories that are written with one statement."""
MAX_REMEMBERED = 100_000
"""Histories that were built once and are remembered, by a hash of 8 bytes without anything of the user."""
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Beyond it a history is not kept: the next read of its user builds it again."""


class BuiltHistory(NamedTuple):
    """A history as a read built it, of one version of one user. The bytes are those of `UserHistory`."""

    incarnation: str  # the transaction that created the user: a user who comes after an erasure has another
    version: int
    events: bytes
    seen: bytes
    bought: bytes

    @property
    def size(self) -> int:
        return len(self.events) + len(self.seen) + len(self.bought)


class HistoryStore:
    """Collects built histories and writes them in batches. Only histories of committed interactions may be offered."""

    def __init__(self, pool: Pool, settings: HistorySettings) -> None:
        self._pool = pool
        self._form = form_of(settings)
        self._waiting: dict[tuple[str, str], BuiltHistory] = {}  # by tenant and user
        self._bytes = 0
        self._built_once: dict[int, None] = {}  # oldest first

    @asynccontextmanager
    async def running(self) -> AsyncIterator["HistoryStore"]:
        """Inside the block, what waits is written every `FLUSH_SECONDS`. On leaving, the rest is forgotten."""
        async with PeriodicTask("histories", self.flush, FLUSH_SECONDS, expected=(psycopg.Error, *UNREACHABLE)):
            yield self

    def offer(self, scope: TenantScope, user_id: str, built: BuiltHistory) -> None:
        """Keep this history where it was offered before, unless too much waits already."""
        name = hash((scope, user_id, built.incarnation, built.version))
        if name not in self._built_once:
            self._built_once[name] = None
            if len(self._built_once) > MAX_REMEMBERED:
                del self._built_once[next(iter(self._built_once))]
            return
        if self._bytes + built.size > MAX_WAITING_BYTES:
            return
        before = self._waiting.pop((scope.tenant_id, user_id), None)
        self._waiting[scope.tenant_id, user_id] = built
        self._bytes += built.size - (before.size if before is not None else 0)

    async def flush(self) -> None:
        """Write what waits. Raises what PostgreSQL raises; the rows of a statement that fails are forgotten."""
        while self._waiting:
            batch = [(key, self._waiting.pop(key)) for key in list(self._waiting)[:MAX_ROWS]]
            self._bytes -= sum(built.size for _, built in batch)
            columns = {
                "tenants": [tenant_id for (tenant_id, _), _ in batch],
                "users": [user_id for (_, user_id), _ in batch],
                "incarnations": [built.incarnation for _, built in batch],
                "versions": [built.version for _, built in batch],
                "events": [built.events for _, built in batch],
                "seen": [built.seen for _, built in batch],
                "bought": [built.bought for _, built in batch],
            }
            async with self._pool.connection() as connection:
                await connection.execute(KEEP, {**columns, "form": self._form})
