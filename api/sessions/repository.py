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

    async def begin(self, user_id: str, seconds: int, refreshable: bool) -> UserSession:
        """A new session of that length. Some of those that are over, whoever's they were, are cleared away."""
        begun = UserSession(
            id=uuid4(),
            tenant_id=self._tenant_id,
            user_id=user_id,
            refreshable=refreshable,
            expires_at=datetime.now(UTC) + timedelta(seconds=seconds),
        )
        self._session.add(begun)
        over = select(col(UserSession.id)).where(col(UserSession.expires_at) < func.now()).limit(PURGE_AT_ONCE)
        ids = over.with_for_update(skip_locked=True).scalar_subquery()
        await self._session.exec(delete(UserSession).where(col(UserSession.id).in_(ids)))
        return begun

    async def end(self, user_id: str, *, only: UUID | None = None, but: UUID | None = None) -> None:
        """End the user's sessions: all, `only` one, or all `but` one. Their access tokens die within 5 seconds."""
        condition = [col(UserSession.tenant_id) == self._tenant_id, col(UserSession.user_id) == user_id]
        if only is not None:
            condition.append(col(UserSession.id) == only)
        if but is not None:
            condition.append(col(UserSession.id) != but)
        await self._session.exec(delete(UserSession).where(*condition))

    async def revoke_refresh_tokens(self, user_id: str) -> None:
        """No refresh token of the user is good any more. Access tokens live on until they expire."""
        statement = update(UserSession).where(
            col(UserSession.tenant_id) == self._tenant_id, col(UserSession.user_id) == user_id
        )
        await self._session.exec(statement.values(refreshable=False))


async def rotate(session: AsyncSession, session_id: UUID, generation: int, seconds: int) -> UserSession | None:
    """The session one generation on; None where this is not its generation, or it is over. No tenant is known yet."""
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
    """End the session where a newer generation is out: someone has a token that was used up.

    On the pool, so that it stands although the request that revealed it is refused.
    """
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "DELETE FROM sessions WHERE id = %s AND generation > %s", [session_id, generation]
        )
        return cursor.rowcount == 1
