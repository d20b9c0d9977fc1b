"""The rows of failed logins and of the networks that accounts are used from."""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Connection, Pool
from api.users.tables import User

FREE_FAILURES = 9
FIRST_DELAY = timedelta(seconds=30)
LONGEST_DELAY = timedelta(minutes=15)
FORGET_AFTER = timedelta(hours=24)
NETWORK_DAYS = 30
"""How long a network stays one that the account is used from, after a login from it."""
MAX_NETWORKS = 20
"""Networks that are stored per user: those of the newest logins."""
MAX_ACCOUNTS = 1_000_000
"""Addresses whose failures are stored. Past it, those that failed longest ago are dropped."""
PURGE_AT_ONCE = 100
FAILURES_PER_COUNT = 1_000
"""One of so many failures also counts the stored addresses, because counting a million takes a tenth of a second."""

_ACCOUNT = "sha256(convert_to(lower(%(email)s), 'UTF8'))"


@dataclass(frozen=True, slots=True)
class FailedLogins:
    """Counts wrong passwords per email address. Case is ignored; callers strip surrounding white space.

    From the tenth wrong password on, an address is delayed: by 30 seconds, then twice as long with each further
    failure, up to 15 minutes. The count restarts after a day, and with a right password.

    A network from which the user of the address logged in lately has its own count, and only this one delays it:
    somebody who guesses elsewhere does not lock the user out. Failures there also count for the address as a whole,
    which is what all other networks are delayed by. For an address that nobody has, the same statements run.

    Statements run on the pool and are committed at once, because the transaction of a refused login is rolled back.
    """

    pool: Pool
    network: str

    async def delay(self, email: str) -> int:
        """Seconds until the address may try again from this network; 0 where it may now."""
        async with self.pool.connection() as connection:
            return await _delay(connection, self._parameters(email))

    async def record(self, email: str) -> int:
        """Count a wrong password and return 0. During a delay, count nothing and return the seconds that are left."""
        parameters = self._parameters(email)
        async with self.pool.connection() as connection:
            # Committed at once: with these locks held, the transaction below could wait for one that waits for it.
            await connection.execute(_PURGE, parameters)
            if secrets.randbelow(FAILURES_PER_COUNT) == 0:
                await connection.execute(_DROP_OLDEST_ACCOUNTS, parameters)
            async with connection.transaction():
                network = await (await connection.execute(_NOTE_NETWORK, parameters)).fetchone()
                if network is not None and not network[0]:
                    return await _delay(connection, parameters)
                (counted,) = await _row(connection, _NOTE_ACCOUNT, parameters | {"is_known": network is not None})
                return 0 if counted or network is not None else await _delay(connection, parameters)

    async def clear(self, email: str) -> int:
        """Delete the count of an address and return 0. During a delay, keep it and return the seconds that are left.

        A right password from a network of the user's ends the count of this network, and takes it from the address's.
        """
        parameters = self._parameters(email)
        async with self.pool.connection() as connection, connection.transaction():
            network = await (await connection.execute(_LOCK_NETWORK, parameters)).fetchone()
            if (left := await _delay(connection, parameters)) > 0:
                return left
            if network is None:
                cleared = await connection.execute(_CLEAR_ACCOUNT, parameters)
                if cleared.rowcount == 0 and (left := await _delay(connection, parameters)) > 0:
                    return left  # a concurrent failure began it
            elif network[0] > 0:
                await connection.execute(_CLEAR_NETWORK, parameters)
                await connection.execute(_SUBTRACT, parameters | {"failures": network[0]})
            return 0

    def _parameters(self, email: str) -> dict[str, Any]:
        return {
            "email": email,
            "network": self.network,
            "free": FREE_FAILURES,
            "first": FIRST_DELAY,
            "longest": LONGEST_DELAY,
            "forget": FORGET_AFTER,
            "remember": timedelta(days=NETWORK_DAYS),
            "purge": PURGE_AT_ONCE,
            "most": MAX_ACCOUNTS,
        }


async def delete_old_failures(pool: Pool) -> int:
    """Delete the failures that are older than `FORGET_AFTER`, and return how many there were."""
    deleted = 0
    while True:
        async with pool.connection() as connection:
            cursor = await connection.execute(_PURGE, {"forget": FORGET_AFTER, "purge": PURGE_AT_ONCE})
        deleted += cursor.rowcount
        if cursor.rowcount < PURGE_AT_ONCE:
            return deleted


async def remember_network(session: AsyncSession, user: User, network: str) -> None:
    """Note a login of the user from this network. Also deletes networks that were not used for long, of any user."""
    parameters = {"tenant": user.tenant_id, "user": user.id, "network": network}
    bounds = {"remember": timedelta(days=NETWORK_DAYS), "others": MAX_NETWORKS - 1, "purge": PURGE_AT_ONCE}
    connection = await session.connection()
    for statement in (_REMEMBER, _DROP_OLDEST_NETWORKS, _PURGE_NETWORKS):
        await connection.execute(statement, parameters | bounds)


async def _delay(connection: Connection, parameters: dict[str, Any]) -> int:
    (seconds,) = await _row(connection, _DELAY, parameters)
    return int(seconds)


async def _row(connection: Connection, statement: str, parameters: dict[str, Any]) -> tuple[Any, ...]:
    row = await (await connection.execute(statement, parameters)).fetchone()
    assert row is not None  # noqa: S101 - of statements that always return one
    return row


# Whether `here`, a row of login_networks, is this network of the address's user and was used lately.
_KNOWN = """
    lower(users.email) = lower(%(email)s) AND users.password_hash IS NOT NULL
    AND here.tenant_id = users.tenant_id AND here.user_id = users.id
    AND here.network = %(network)s AND here.last_login_at > now() - %(remember)s
"""

_DELAY = f"""
SELECT greatest(0, ceil(extract(epoch FROM
    CASE WHEN here.network IS NULL THEN everywhere.delayed_until ELSE here.delayed_until END - now()
)))
FROM (VALUES (1)) AS always
LEFT JOIN (SELECT here.* FROM login_networks AS here, users WHERE {_KNOWN}) AS here ON true
LEFT JOIN failed_logins AS everywhere ON everywhere.account = {_ACCOUNT}
"""  # noqa: S608 - of constants


def _failed(row: str, is_counted: str) -> str:
    """The columns of a row after one more failure, which counts where `is_counted`. A delay that runs stays as it is.

    The row was counted where `last_failed_at` is the time of the transaction.
    """
    is_recent = f"{row}.last_failed_at >= now() - %(forget)s"
    is_delayed = f"{row}.delayed_until > now()"
    return f"""
        failures = CASE
            WHEN NOT ({is_counted}) THEN {row}.failures WHEN {is_recent} THEN {row}.failures + 1 ELSE 1
        END,
        delayed_until = CASE
            WHEN {is_delayed} THEN {row}.delayed_until
            WHEN {is_recent} AND {row}.failures >= %(free)s
            THEN now() + least(%(longest)s, %(first)s * power(2, least({row}.failures - %(free)s, 20)))
        END,
        last_failed_at = CASE WHEN {is_counted} THEN now() ELSE {row}.last_failed_at END
    """


_NOT_DELAYED = "coalesce({row}.delayed_until <= now(), true)"

_NOTE_NETWORK = f"""
UPDATE login_networks AS here SET {_failed("here", _NOT_DELAYED.format(row="here"))}
FROM users WHERE {_KNOWN}
RETURNING coalesce(here.last_failed_at = now(), false)
"""  # noqa: S608 - of constants

_NOTE_ACCOUNT = f"""
INSERT INTO failed_logins AS known (account, failures, last_failed_at) VALUES ({_ACCOUNT}, 1, now())
ON CONFLICT (account) DO UPDATE SET {_failed("known", f"%(is_known)s OR {_NOT_DELAYED.format(row='known')}")}
RETURNING last_failed_at = now()
"""  # noqa: S608 - of constants

_LOCK_NETWORK = f"""
SELECT CASE WHEN here.last_failed_at >= now() - %(forget)s THEN here.failures ELSE 0 END
FROM login_networks AS here, users WHERE {_KNOWN} FOR UPDATE OF here
"""  # noqa: S608 - of constants

_CLEAR_ACCOUNT = f"""
DELETE FROM failed_logins WHERE account = {_ACCOUNT} AND coalesce(delayed_until <= now(), true)
"""  # noqa: S608 - of constants

_CLEAR_NETWORK = f"""
UPDATE login_networks AS here SET failures = 0, delayed_until = NULL FROM users WHERE {_KNOWN}
"""  # noqa: S608 - of constants

_SUBTRACT = f"""
UPDATE failed_logins SET
    failures = greatest(0, failures - %(failures)s),
    delayed_until = CASE WHEN failures - %(failures)s > %(free)s THEN delayed_until END
WHERE account = {_ACCOUNT}
"""  # noqa: S608 - of constants

_PURGE = """
DELETE FROM failed_logins WHERE account IN (
    SELECT account FROM failed_logins WHERE last_failed_at < now() - %(forget)s LIMIT %(purge)s
    FOR UPDATE SKIP LOCKED
)
"""

_DROP_OLDEST_ACCOUNTS = """
DELETE FROM failed_logins WHERE account IN (
    SELECT account FROM failed_logins ORDER BY failures > %(free)s, last_failed_at
    LIMIT (SELECT greatest(0, count(*) - %(most)s) FROM failed_logins)
    FOR UPDATE SKIP LOCKED
)
"""

_REMEMBER = text(
    """
    INSERT INTO login_networks AS known (tenant_id, user_id, network) VALUES (:tenant, :user, :network)
    ON CONFLICT (tenant_id, user_id, network) DO UPDATE SET
        last_login_at = now(),
        failures = CASE WHEN known.last_login_at > now() - :remember THEN known.failures ELSE 0 END,
        delayed_until = CASE WHEN known.last_login_at > now() - :remember THEN known.delayed_until END
    """
)

_DROP_OLDEST_NETWORKS = text(
    """
    DELETE FROM login_networks WHERE tenant_id = :tenant AND user_id = :user AND network IN (
        SELECT network FROM login_networks WHERE tenant_id = :tenant AND user_id = :user AND network <> :network
        ORDER BY last_login_at DESC OFFSET :others
    )
    """
)

_PURGE_NETWORKS = text(
    """
    DELETE FROM login_networks WHERE (tenant_id, user_id, network) IN (
        SELECT tenant_id, user_id, network FROM login_networks
        WHERE last_login_at < now() - :remember LIMIT :purge FOR UPDATE SKIP LOCKED
    )
    """
)
