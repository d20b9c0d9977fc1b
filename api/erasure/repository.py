"""The rows that an erasure takes with it."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope


class ErasureRepository:
    """What one tenant's users left behind, beside what goes with their own row by foreign key."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def erase(self, user_id: str) -> None:
        """Delete what the user did and was shown, and write the tombstone.

        The user's own row is deleted before, in this transaction: whoever brings an interaction of the user waits for
        it, and begins a new user afterwards.
        """
        connection = await self._session.connection()
        for statement in _ERASE:
            await connection.execute(statement, {"tenant": self._tenant_id, "user": user_id})


async def erased(
    connection: AsyncConnection[Any], users: Collection[tuple[str, str]]
) -> dict[tuple[str, str], datetime | None]:
    """Those of these (tenant, user) that were erased: when, or None where nobody of the id came since.

    Until the transaction ends, no user is erased anywhere.
    """
    await connection.execute(_NO_ERASURE_MEANWHILE)
    tenants, ids = ([*part] for part in zip(*users, strict=True))
    cursor = await connection.execute(_ERASED, [tenants, ids])
    return {(tenant, user): erased_at for tenant, user, erased_at in await cursor.fetchall()}


# What the log of answers writes is not in the way of other rows: only this lock makes it come before or after.
_LOCK = "hashtextextended('erasure', 0)"
_NO_ERASURE_MEANWHILE = f"SELECT pg_advisory_xact_lock_shared({_LOCK})"

_OF_THE_USER = "tenant_id = :tenant AND user_id = :user"

_ERASE = (
    # An interaction's own time of arrival is that of the database's clock, which may have been set back since.
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
