"""The rows of users."""

from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.edge.principal import TenantInfo, UserPrincipal
from api.tenants.tables import Tenant
from api.users.tables import User

FIND_ACTIVE = """
    SELECT users.id, users.role, tenants.id, tenants.plan, tenants.exclude_seen
    FROM users JOIN tenants ON tenants.id = users.tenant_id
    WHERE users.tenant_id = %s AND users.id = %s AND users.is_active AND tenants.deleted_at IS NULL
"""


class UserRepository:
    """The users of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def add(self, user: User) -> None:
        """Raises IntegrityError where somebody who can log in has this address."""
        self._session.add(user)
        await self._session.flush()

    async def note_activity(self, user_id: str) -> None:
        """The user was active just now."""
        statement = update(User).where(col(User.tenant_id) == self._tenant_id, col(User.id) == user_id)
        await self._session.exec(statement.values(last_active_at=func.now()))


async def find_login(session: AsyncSession, email: str) -> User | None:
    """Who logs in with this address: a login names no tenant."""
    statement = (
        select(User)
        .join(Tenant, col(Tenant.id) == col(User.tenant_id))
        .where(
            func.lower(User.email) == email.strip().lower(),
            col(User.password_hash).is_not(None),
            col(Tenant.deleted_at).is_(None),
        )
    )
    return (await session.exec(statement)).one_or_none()


async def find_active(pool: Pool, tenant_id: str, user_id: str) -> UserPrincipal | None:
    """The user as a principal; None where there is none, or it or its tenant is no longer active."""
    async with pool.connection() as connection:
        cursor = await connection.execute(FIND_ACTIVE, [tenant_id, user_id])
        row = await cursor.fetchone()
    if row is None:
        return None
    found_id, role, *tenant = row
    return UserPrincipal(TenantInfo(*tenant), found_id, role)
