"""Does to a restored database what happened after its backup was made and must not be undone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.erasure.journal import ErasureJournal
from api.erasure.service import erase_user
from api.tenants.repository import TenantRepository
from api.tenants.tables import Tenant
from api.users.repository import UserRepository

_LINES = 1_000
"""Lines of a journal that are held at a time."""

Lines = Iterator[dict[str, Any]]


@dataclass
class Replayed:
    """What was done to the database."""

    users: int = 0  # erased again
    known_users: int = 0  # whose erasure the backup knew
    tenants: list[str] = field(default_factory=list)  # erased again
    keys: int = 0  # revoked again
    sessions: int = 0  # ended, with their refresh tokens
    subscriptions: int = 0  # to be read from Stripe


async def replay(
    url: str, erasures: Lines, revocations: Lines, journal: ErasureJournal, *, end_sessions: bool = True
) -> Replayed:
    """Erase and revoke again, end sessions, and mark what only Stripe knows.

    Args:
        url: of a migrated database that nobody else uses.
        journal: of the restored installation, to which erasures are added under the time at which they are repeated.
        end_sessions: False leaves sessions and subscriptions alone.
    """
    done = Replayed()
    database = Database(url, pool_min=1, pool_max=2)
    await database.open()
    try:
        for lines in _portions(erasures):
            await _erase(database, lines, journal, done)
        async with database.pool.connection() as connection:
            for lines in _portions(revocations):
                columns = [[line[name] for line in lines] for name in ("tenant", "key", "hash", "ended_at")]
                done.keys += await _count(connection, _REVOKE, columns)
            if not end_sessions:
                return done
            done.sessions = await _count(connection, "DELETE FROM sessions")
            async with connection.transaction():
                await connection.execute("UPDATE subscriptions SET as_of = NULL")
                done.subscriptions = await _count(connection, _READ_ANEW)
    finally:
        await database.close()
    return done


async def _erase(database: Database, lines: list[dict[str, Any]], journal: ErasureJournal, done: Replayed) -> None:
    columns = [[line[name] for line in lines] for name in ("tenant", "user", "erased_at")]
    async with database.pool.connection() as connection:
        tenants = await (await connection.execute(_TENANTS_TO_ERASE, columns)).fetchall()
        users = await (await connection.execute(_USERS_TO_ERASE, columns)).fetchall()
    done.known_users += len({(line["tenant"], line["user"]) for line in lines if line["user"] is not None}) - len(users)
    for tenant_id, erased_at, exists in tenants:
        async with transaction(database) as session:
            repository = TenantRepository(session)
            if exists:
                await repository.erase(TenantScope(tenant_id))
            else:  # made and deleted after the backup: its id must not be used again
                await repository.add(Tenant(id=tenant_id, deleted_at=datetime.fromisoformat(str(erased_at))))
        done.tenants.append(tenant_id)
    for tenant_id, user_id in users:
        if tenant_id in done.tenants:
            continue
        scope = TenantScope(tenant_id)
        async with transaction(database) as session:
            deleted = await UserRepository(session, scope).delete(user_id)
            await erase_user(session, scope, user_id, journal, deleted.email if deleted else None)
        done.users += 1


def _portions(lines: Lines) -> Iterator[list[dict[str, Any]]]:
    while portion := list(islice(lines, _LINES)):
        yield portion


async def _count(connection: AsyncConnection[TupleRow], statement: str, parameters: Any = None) -> int:
    return (await connection.execute(statement.encode(), parameters)).rowcount


_LINE = "unnest(%s::text[], %s::text[], %s::timestamptz[]) AS line (tenant_id, user_id, erased_at)"

_TENANTS_TO_ERASE = f"""
SELECT line.tenant_id, max(line.erased_at), bool_or(tenants.id IS NOT NULL)
FROM {_LINE} LEFT JOIN tenants ON tenants.id = line.tenant_id
WHERE line.user_id IS NULL AND tenants.deleted_at IS NULL GROUP BY line.tenant_id ORDER BY line.tenant_id
"""  # noqa: S608 - constants of this module

# Those of tenants that the backup does not know left nothing in it.
_USERS_TO_ERASE = f"""
SELECT DISTINCT line.tenant_id, line.user_id
FROM {_LINE} JOIN tenants ON tenants.id = line.tenant_id AND tenants.deleted_at IS NULL
WHERE line.user_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM tombstones
    WHERE tombstones.tenant_id = line.tenant_id AND tombstones.user_id = line.user_id
        AND tombstones.erased_at >= line.erased_at
)
ORDER BY line.tenant_id, line.user_id
"""  # noqa: S608

_REVOKE = """
UPDATE api_keys SET revoked_at = line.ended_at
FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::timestamptz[]) AS line (tenant_id, id, hash, ended_at)
WHERE api_keys.tenant_id = line.tenant_id AND api_keys.id = line.id AND api_keys.key_hash = decode(line.hash, 'hex')
    AND api_keys.revoked_at IS NULL
"""

# An event only says that something changed: handling one reads the customer's subscriptions from Stripe.
_READ_ANEW = """
INSERT INTO stripe_events (id, type, created, payload)
SELECT 'restored-' || gen_random_uuid(), 'customer.subscription.updated', now(),
    jsonb_build_object('object', subscription_id, 'customer', customer_id, 'tenant', NULL)
FROM subscriptions
"""
