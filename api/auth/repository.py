"""The rows of failed logins."""

from dataclasses import dataclass
from datetime import timedelta

from api.database.engine import Pool

FREE_FAILURES = 9
FIRST_DELAY = timedelta(seconds=30)
LONGEST_DELAY = timedelta(minutes=15)
FORGET_AFTER = timedelta(hours=24)
PURGE_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class FailedLogins:
    """Counts wrong passwords per email address. Case is ignored; callers strip surrounding white space.

    From the tenth wrong password on, an address is delayed: by 30 seconds, then twice as long with each further
    failure, up to 15 minutes. The count restarts after a day, and with a right password.

    Statements run on the pool and are committed at once, because the transaction of a refused login is rolled back.
    """

    pool: Pool

    async def delay(self, email: str) -> int:
        """Seconds until the address may try again; 0 where it may now."""
        return await self._seconds(_DELAY, {"email": email})

    async def record(self, email: str) -> int:
        """Count a wrong password and return 0. During a delay, count nothing and return the seconds that are left."""
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
        """Delete the count of an address and return 0. During a delay, keep it and return the seconds that are left."""
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
