"""The rows of sessions."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select, update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.sessions.tables import UserSession

PURGE_AT_ONCE = 100


class SessionRepository:
    """The sessions of one tenant's users."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def start(self, user_id: str, seconds: int, refreshable: bool) -> UserSession:
        """Add a session that expires after `seconds`. Also deletes some expired sessions, of any tenant."""
        started = UserSession(
            id=uuid4(),
            tenant_id=self._tenant_id,
            user_id=user_id,
            refreshable=refreshable,
            expires_at=datetime.now(UTC) + timedelta(seconds=seconds),
        )
        self._session.add(started)
        expired = select(col(UserSession.id)).where(col(UserSession.expires_at) < func.now()).limit(PURGE_AT_ONCE)
        ids = expired.with_for_update(skip_locked=True).scalar_subquery()
        await self._session.exec(delete(UserSession).where(col(UserSession.id).in_(ids)))
        return started

    async def end(self, user_id: str, *, only: UUID | None = None, except_for: UUID | None = None) -> None:
        """End the user's sessions: all, `only` one, or all `except_for` one. Access tokens end within 5 seconds."""
        condition = [col(UserSession.tenant_id) == self._tenant_id, col(UserSession.user_id) == user_id]
        if only is not None:
            condition.append(col(UserSession.id) == only)
        if except_for is not None:
            condition.append(col(UserSession.id) != except_for)
        await self._session.exec(delete(UserSession).where(*condition))

    async def revoke_refresh_tokens(self, user_id: str) -> None:
        """Revoke all refresh tokens of the user. Its access tokens stay valid until they expire."""
        statement = update(UserSession).where(
            col(UserSession.tenant_id) == self._tenant_id, col(UserSession.user_id) == user_id
        )
        await self._session.exec(statement.values(refreshable=False))


async def rotate(session: AsyncSession, session_id: UUID, generation: int, seconds: int) -> UserSession | None:
    """Advance a session by one generation and return it; None where it has another generation or has expired.

    The refresh token names no tenant, so there is no scope.
    """
    statement = (
        update(UserSession)
        .where(
            col(UserSession.id) == session_id,
            col(UserSession.generation) == generation,
            col(UserSession.refreshable),
            col(UserSession.expires_at) > func.now(),
        )
        .values(generation=col(UserSession.generation) + 1, expires_at=datetime.now(UTC) + timedelta(seconds=seconds))
        .returning(UserSession)
    )
    return (await session.exec(statement)).scalar_one_or_none()


async def revoke_if_reused(pool: Pool, session_id: UUID, generation: int) -> bool:
    """End the session if this generation was used before, and return whether it was.

    Runs on the pool, because the transaction of the refused request is rolled back.
    """
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "DELETE FROM sessions WHERE id = %s AND generation > %s", [session_id, generation]
        )
        return cursor.rowcount == 1
