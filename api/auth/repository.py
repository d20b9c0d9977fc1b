"""The rows of sessions and of failed logins."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select, update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth.tables import UserSession
from api.database.engine import Pool
from api.database.scope import TenantScope

FREE_FAILURES = 9
FIRST_DELAY = timedelta(seconds=30)
LONGEST_DELAY = timedelta(minutes=15)
FORGET_AFTER = timedelta(hours=24)
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


@dataclass(frozen=True, slots=True)
class FailedLogins:
    """Counts wrong passwords per address, in whatever case; addresses come without white space around them.

    Each statement is committed, as failing requests are not.

    From the tenth on an address has to wait: 30 seconds, and with each further failure twice as long, up to 15
    minutes. The count is forgotten after a day, or with a right password.
    """

    pool: Pool

    async def delay(self, email: str) -> int:
        """Seconds until the address may try again; 0: it may."""
        return await self._seconds(_DELAY, {"email": email})

    async def note(self, email: str) -> int:
        """Count a wrong password. Seconds the address was already delayed by, in which case nothing is counted."""
        parameters = {
            "email": email,
            "free": FREE_FAILURES,
            "first": FIRST_DELAY,
            "longest": LONGEST_DELAY,
            "forget": FORGET_AFTER,
            "purge": PURGE_AT_ONCE,
        }
        async with self.pool.connection() as connection:
            await connection.execute(_PURGE, parameters)
            counted = await connection.execute(_NOTE, parameters)
        return 0 if counted.rowcount == 1 else await self.delay(email)

    async def clear(self, email: str) -> int:
        """Forget the failures of an address. Seconds it is delayed by, in which case nothing is forgotten."""
        return await self._seconds(_CLEAR, {"email": email})

    async def _seconds(self, statement: str, parameters: dict[str, str]) -> int:
        async with self.pool.connection() as connection:
            row = await (await connection.execute(statement, parameters)).fetchone()
        return int(row[0]) if row else 0


_ACCOUNT = "sha256(convert_to(lower(%(email)s), 'UTF8'))"

_DELAY = f"""
SELECT ceil(extract(epoch FROM delayed_until - now())) FROM failed_logins
WHERE account = {_ACCOUNT} AND delayed_until > now()
"""  # noqa: S608 - of constants

_CLEAR = f"""
WITH cleared AS (
    DELETE FROM failed_logins WHERE account = {_ACCOUNT} AND (delayed_until IS NULL OR delayed_until <= now())
)
{_DELAY}
"""  # noqa: S608 - of constants

_NOTE = f"""
INSERT INTO failed_logins AS known (account, failures, last_failed_at) VALUES ({_ACCOUNT}, 1, now())
ON CONFLICT (account) DO UPDATE SET
    failures = CASE WHEN known.last_failed_at < now() - %(forget)s THEN 1 ELSE known.failures + 1 END,
    delayed_until = CASE
        WHEN known.last_failed_at >= now() - %(forget)s AND known.failures >= %(free)s
        THEN now() + least(%(longest)s, %(first)s * power(2, least(known.failures - %(free)s, 20)))
    END,
    last_failed_at = now()
WHERE known.delayed_until IS NULL OR known.delayed_until <= now()
"""  # noqa: S608 - of constants

_PURGE = """
DELETE FROM failed_logins WHERE account IN (
    SELECT account FROM failed_logins WHERE last_failed_at < now() - %(forget)s LIMIT %(purge)s
    FOR UPDATE SKIP LOCKED
)
"""
