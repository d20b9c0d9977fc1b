"""The rows of tenants."""

from datetime import timedelta

from sqlalchemy import delete, func, insert, text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.base import ONE_ROW_PER_TENANT
from api.database.engine import Pool
from api.database.erasure_lock import ERASE_ALONE
from api.database.scope import TenantScope
from api.database.tables import all_tables
from api.tenants.tables import Tenant

# Their rows name no tenant: a login names none either.
_FORGET_FAILURES = text(
    """
    DELETE FROM failed_logins WHERE account IN (
        SELECT sha256(convert_to(lower(email), 'UTF8')) FROM users
        WHERE tenant_id = :tenant AND password_hash IS NOT NULL
    )
    """
)


class TenantRepository:
    """All tenants, so it takes no scope. Only commands use it."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, tenant_id: str) -> Tenant | None:
        """The tenant, deleted or not."""
        return await self._session.get(Tenant, tenant_id)

    async def list_live(self) -> list[Tenant]:
        statement = select(Tenant).where(col(Tenant.deleted_at).is_(None)).order_by(Tenant.id)
        return list(await self._session.exec(statement))

    async def add(self, tenant: Tenant) -> None:
        """Add a tenant, and its row in each table that keeps one row per tenant."""
        self._session.add(tenant)
        await self._session.flush()
        for table in all_tables().sorted_tables:
            if table.info.get(ONE_ROW_PER_TENANT):
                await self._session.exec(insert(table).values(tenant_id=tenant.id))

    async def erase(self, scope: TenantScope) -> None:
        """Delete the tenant's rows in every table, and mark its own row as deleted, so that the id is not used again.

        The tenant's own row is marked first. The pipeline locks that row while it adds counts, so that one of the two
        waits for the other. Impressions that wait to be written find it marked, once those under way are written.
        """
        await (await self._session.connection()).execute(text(ERASE_ALONE))
        statement = update(Tenant).where(col(Tenant.id) == scope.tenant_id).values(deleted_at=func.now())
        await self._session.exec(statement)
        await (await self._session.connection()).execute(_FORGET_FAILURES, {"tenant": scope.tenant_id})
        await self.delete_rows(scope)

    async def deleted_within(self, past: timedelta) -> list[TenantScope]:
        """The tenants that were deleted so long ago or less."""
        statement = select(Tenant.id).where(col(Tenant.deleted_at) > func.now() - past).order_by(Tenant.id)
        return [TenantScope(tenant_id) for tenant_id in await self._session.exec(statement)]

    async def delete_rows(self, scope: TenantScope) -> int:
        """Delete the tenant's rows in every table but that of the tenants. Returns how many there were."""
        deleted = 0
        for table in reversed(all_tables().sorted_tables):
            if "tenant_id" in table.c:
                of_tenant = delete(table).where(table.c.tenant_id == scope.tenant_id)
                deleted += (await self._session.exec(of_tenant)).rowcount
        return deleted


async def is_live_tenant(pool: Pool, tenant_id: str) -> bool:
    """Whether there is this tenant."""
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT FROM tenants WHERE id = %s AND deleted_at IS NULL", [tenant_id])
        return cursor.rowcount == 1
