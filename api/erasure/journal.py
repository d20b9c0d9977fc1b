"""The journal of erasures, which a restore replays. A line holds tenant, user and time, and nothing else.

A user's line is written within the transaction that erases, after its last statement and before its commit. Lines that
are missing, because an earlier version of this code erased or the file was lost, are filled in from the tombstones when
the API starts.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from itertools import islice

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from api.database.engine import UNREACHABLE, Pool
from api.journal_copies import copying_journal
from configs.journal import ERASURES, Journal, JournalSettings
from configs.settings import PathSettings

_ROWS = 1_000


class ErasureJournal:
    """The erasures of an installation: of users, and of whole tenants, whose lines name no user."""

    def __init__(self, paths: PathSettings, settings: JournalSettings) -> None:
        self._journal = Journal(paths.journal / ERASURES, settings.copy_folder)

    async def record(self, tenant_id: str, user_id: str | None, erased_at: datetime) -> None:
        """Write an erasure to disk. Call it before the commit, which must not happen where this raises OSError."""
        await asyncio.to_thread(self._journal.append, [_line(tenant_id, user_id, erased_at)])

    async def copy(self) -> None:
        """Bring the copy up to date. Raises OSError or AnotherJournalError."""
        await asyncio.to_thread(self._journal.copy)

    async def fill(self, pool: Pool) -> int:
        """Add the erasures that the database knows and the journal does not. Returns how many.

        Without any erasure the journal's file is made and left empty, so that a restore knows that nobody was erased.
        """
        added = 0
        async with pool.connection() as connection, connection.transaction():
            await self._stage(connection)
            async with connection.cursor(name="missing_erasures") as cursor:
                await cursor.execute(_MISSING)
                while rows := await cursor.fetchmany(_ROWS):
                    await asyncio.to_thread(self._journal.append, [_line(*row) for row in rows])
                    added += len(rows)
        await asyncio.to_thread(self._journal.append, [])
        return added

    def copied(self, pool: Pool) -> AbstractAsyncContextManager[None]:
        """While inside, missing lines are filled in, and the copy follows within a second."""
        return copying_journal(self._journal, lambda: self.fill(pool), UNREACHABLE)

    async def _stage(self, connection: AsyncConnection[TupleRow]) -> None:
        await connection.execute(
            "CREATE TEMP TABLE known_erasures (tenant_id TEXT, user_id TEXT, erased_at TIMESTAMPTZ) ON COMMIT DROP"
        )
        entries = self._journal.entries()
        while lines := await asyncio.to_thread(lambda: list(islice(entries, _ROWS))):
            columns = ([line[name] for line in lines] for name in ("tenant", "user", "erased_at"))
            await connection.execute(
                "INSERT INTO known_erasures SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[])",
                list(columns),
            )


def _line(tenant_id: str, user_id: str | None, erased_at: datetime) -> Mapping[str, str | None]:
    return {"tenant": tenant_id, "user": user_id, "erased_at": erased_at.astimezone(UTC).isoformat()}


_MISSING = """
SELECT tenant_id, user_id, erased_at FROM tombstones WHERE NOT EXISTS (
    SELECT FROM known_erasures AS known
    WHERE known.tenant_id = tombstones.tenant_id AND known.user_id = tombstones.user_id
        AND known.erased_at >= tombstones.erased_at
)
UNION ALL
SELECT id, NULL, deleted_at FROM tenants WHERE deleted_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM known_erasures AS known WHERE known.tenant_id = tenants.id AND known.user_id IS NULL
)
"""
