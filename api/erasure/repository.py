"""Deletes the rows of an erased user, and says whose rows may not be written any more."""

from datetime import datetime

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.erasure_lock import ERASE_ALONE, ERASE_ALONE_IN_TENANT
from api.database.scope import TenantScope


class ErasureRepository:
    """The rows of one tenant's users that no foreign key deletes with the user's own row."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def erase(self, user_id: str) -> datetime:
        """Delete the user's interactions and impressions, withdraw files that may hold them, and write the tombstone.
        Returns its time.

        Delete the user's own row before, in the same transaction. A concurrent insert of an interaction waits for that
        row, and creates a new user after the commit.
        """
        connection = await self._session.connection()
        of_user = {"tenant": self._tenant_id, "user": user_id}
        erased_at: datetime = (await connection.execute(_ENTOMB, of_user)).scalar_one()
        for statement in _ERASE:
            await connection.execute(statement, of_user)
        return erased_at


def may_stay_sql(row: str) -> str:
    """A condition: the row's tenant is not deleted, and its user is not erased, or has come back since.

    A user has come back where the erasure is older than `created_at` and there is such a user again.

    row: the name of a table with `tenant_id, user_id, created_at`.
    """
    return f"""
        NOT EXISTS (SELECT FROM tenants WHERE tenants.id = {row}.tenant_id AND tenants.deleted_at IS NOT NULL)
        AND NOT EXISTS (
            SELECT FROM tombstones
            WHERE tombstones.tenant_id = {row}.tenant_id AND tombstones.user_id = {row}.user_id
                AND ({row}.created_at <= tombstones.erased_at OR NOT EXISTS (
                    SELECT FROM users WHERE users.tenant_id = {row}.tenant_id AND users.id = {row}.user_id
                ))
        )
    """  # noqa: S608 - the name of a table in a statement of this code base


_OF_THE_USER = "tenant_id = :tenant AND user_id = :user"

# The tombstone is never earlier than an `ingested_at`, even where the database's clock was set back since.
_ENTOMB = text(
    f"""
    WITH gone AS (DELETE FROM interactions WHERE {_OF_THE_USER} RETURNING ingested_at)
    INSERT INTO tombstones AS known (tenant_id, user_id, erased_at)
    SELECT :tenant, :user, greatest(clock_timestamp(), max(ingested_at)) FROM (
        SELECT ingested_at FROM gone UNION ALL SELECT ingested_at FROM archived_events WHERE {_OF_THE_USER}
    ) AS ingested
    ON CONFLICT (tenant_id, user_id) DO UPDATE
    SET erased_at = greatest(known.erased_at, excluded.erased_at), xid = excluded.xid
    RETURNING erased_at
    """  # noqa: S608 - constants of this module
)

_ERASE = (
    text(ERASE_ALONE),
    # Whoever adds a job notes it in the audit trail, and so commits before this lock or waits for the erasure's end.
    text(ERASE_ALONE_IN_TENANT.replace("%(tenant)s", ":tenant")),
    # The pipeline may have moved rows to the archive while an earlier statement waited for them.
    text(f"DELETE FROM archived_interactions WHERE {_OF_THE_USER}"),  # noqa: S608 - constants of this module
    text(f"DELETE FROM impressions WHERE {_OF_THE_USER}"),  # noqa: S608 - constants of this module
    # Whoever writes a file now finds that it was claimed before the erasure, and writes it anew.
    text(
        """
        UPDATE export_jobs SET started_at = NULL,
            status = CASE status WHEN 'completed' THEN 'expired' ELSE status END,
            error = CASE status WHEN 'completed' THEN 'a user was erased since; ask for a new export' END
        WHERE tenant_id = :tenant AND status IN ('processing', 'completed')
        """
    ),
)
