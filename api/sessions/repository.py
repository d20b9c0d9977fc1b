"""The rows of sessions."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import DateTime, delete, func, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.sessions.tables import UserSession

PURGE_AT_ONCE = 100
GRACE = timedelta(seconds=10)
"""A refresh token that is used again within this time gets the same answer: a client that lost it may ask again."""
MAX_ROTATIONS = 16
"""Rotations whose times are stored per session. Of more in a grace period, the oldest have none."""


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


@dataclass(frozen=True, slots=True)
class TokenGeneration:
    """One generation of the tokens of a session, and when it began."""

    session: UserSession
    number: int
    begun_at: datetime


async def rotate(session: AsyncSession, session_id: UUID, generation: int, seconds: int) -> TokenGeneration | None:
    """Advance a session by one generation, unless this one was advanced within `GRACE`.

    Returns the generation that follows this one: where several requests bring the same refresh token within that time,
    all of them get the same. None where the session has another generation or has expired.

    The refresh token names no tenant, so there is no scope.
    """
    now = datetime.now(UTC)
    usable = (
        col(UserSession.id) == session_id,
        col(UserSession.refreshable),
        col(UserSession.expires_at) > func.now(),
    )
    known = func.cardinality(col(UserSession.rotations))
    extended = func.array_append(col(UserSession.rotations), now, type_=ARRAY(DateTime(timezone=True)))
    statement = (
        update(UserSession)
        .where(*usable, col(UserSession.generation) == generation)
        .values(
            generation=col(UserSession.generation) + 1,
            expires_at=now + timedelta(seconds=seconds),
            rotations=extended[func.greatest(1, known + 2 - MAX_ROTATIONS) : known + 1],
        )
        .returning(UserSession)
    )
    rotated = (await session.exec(statement)).scalar_one_or_none()
    if rotated is not None:
        return TokenGeneration(rotated, rotated.generation, rotated.rotations[-1])
    # A concurrent request that rotated it has committed by now, because the update waited for it.
    found = (await session.exec(select(UserSession).where(*usable))).one_or_none()
    if found is None:
        return None
    position = len(found.rotations) - (found.generation - generation)
    if not 0 <= position < len(found.rotations) or now - found.rotations[position] > GRACE:
        return None
    return TokenGeneration(found, generation + 1, found.rotations[position])


async def revoke_if_reused(pool: Pool, session_id: UUID, generation: int) -> bool:
    """End the session if this generation was used before, and return whether it was.

    Runs on the pool, because the transaction of the refused request is rolled back.
    """
    async with pool.connection() as connection:
        cursor = await connection.execute(_REVOKE, [session_id, generation, generation, datetime.now(UTC) - GRACE])
        return cursor.rowcount == 1


_REVOKE = """
    DELETE FROM sessions
    WHERE id = %s AND generation > %s
        AND coalesce(rotations[cardinality(rotations) - (generation - %s) + 1] < %s, true)
"""
