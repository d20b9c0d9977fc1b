"""Deletes the rows of an erased user, and looks up who was erased."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope


class ErasureRepository:
    """The rows of one tenant's users that no foreign key deletes with the user's own row."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def erase(self, user_id: str) -> None:
        """Delete the user's interactions and impressions, and write the tombstone.

        Delete the user's own row before, in the same transaction. A concurrent insert of an interaction waits for that
        row, and creates a new user after the commit.
        """
        connection = await self._session.connection()
        for statement in _ERASE:
            await connection.execute(statement, {"tenant": self._tenant_id, "user": user_id})


async def erased(
    connection: AsyncConnection[Any], users: Collection[tuple[str, str]]
) -> dict[tuple[str, str], datetime | None]:
    """The erased ones of these (tenant, user) pairs.

    The value is the time of the erasure where a new user with this id has come since, and None where none has. No user
    is erased anywhere until the transaction ends.
    """
    await connection.execute(_NO_ERASURE_MEANWHILE)
    tenants, ids = ([*part] for part in zip(*users, strict=True))
    cursor = await connection.execute(_ERASED, [tenants, ids])
    return {(tenant, user): erased_at for tenant, user, erased_at in await cursor.fetchall()}


# Impressions are written without a lock on other rows. This lock orders them before or after an erasure.
_LOCK = "hashtextextended('erasure', 0)"
_NO_ERASURE_MEANWHILE = f"SELECT pg_advisory_xact_lock_shared({_LOCK})"

_OF_THE_USER = "tenant_id = :tenant AND user_id = :user"

_ERASE = (
    # The tombstone is never earlier than an `ingested_at`, even where the database's clock was set back since.
    text(
        f"""
        WITH gone AS (DELETE FROM interactions WHERE {_OF_THE_USER} RETURNING ingested_at)
        INSERT INTO tombstones AS known (tenant_id, user_id, erased_at)
        SELECT :tenant, :user, greatest(clock_timestamp(), max(ingested_at)) FROM gone
        ON CONFLICT (tenant_id, user_id) DO UPDATE
        SET erased_at = greatest(known.erased_at, excluded.erased_at), xid = excluded.xid
        """  # noqa: S608 - constants of this module
    ),
    text(f"SELECT pg_advisory_xact_lock({_LOCK})"),
    text(f"DELETE FROM impressions WHERE {_OF_THE_USER}"),  # noqa: S608 - constants of this module
)

_ERASED = """
SELECT tombstones.tenant_id, tombstones.user_id, CASE WHEN users.id IS NOT NULL THEN tombstones.erased_at END
FROM unnest(%s::text[], %s::text[]) AS asked (tenant_id, id)
JOIN tombstones ON tombstones.tenant_id = asked.tenant_id AND tombstones.user_id = asked.id
LEFT JOIN users ON users.tenant_id = asked.tenant_id AND users.id = asked.id
"""
