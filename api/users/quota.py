"""New users where a plan takes only so many. Who logs in, here or with another issuer's token, does not count."""

from collections.abc import Sequence

from api.database.engine import Connection
from api.database.scope import TenantScope
from api.users.tables import PORTAL


async def refused_newcomers(
    connection: Connection, scope: TenantScope, user_ids: Sequence[str], limit: int
) -> set[str]:
    """Of these ids, in their order, the new ones that the limit leaves no room for. Known users are never refused.

    Until the connection's transaction ends, the tenant's other newcomers wait, so that the last place is given once.
    """
    tenant = scope.tenant_id
    if not await (await connection.execute(_SOME_NEW, [list(user_ids), tenant])).fetchone():
        return set()
    await connection.execute(LOCK, [tenant])
    # The wait may have been long: only now is it known who is new and how many there are.
    row = await (await connection.execute(_ROOM, [tenant, limit, list(user_ids), tenant])).fetchone()
    known, new = row or (0, [])
    return set(new[max(0, limit - known) :])


async def count_portal_users(connection: Connection, scope: TenantScope) -> int:
    """Users of the tenant that no plan counts."""
    row = await (await connection.execute(_PORTAL, [scope.tenant_id])).fetchone()
    return 0 if row is None else int(row[0])


LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('newcomers ' || %s, 0))"

_IS_NEW = "NOT EXISTS (SELECT FROM users WHERE users.tenant_id = %s AND users.id = given.id)"

_SOME_NEW = f"SELECT true FROM unnest(%s::text[]) AS given (id) WHERE {_IS_NEW} LIMIT 1"  # noqa: S608 - this module's

COUNTED = f"users WHERE tenant_id = %s AND NOT ({PORTAL})"
"""The users that a plan counts."""

# Counted no further than the limit: what is past it does not matter.
_ROOM = f"""
SELECT (SELECT count(*) FROM (SELECT FROM {COUNTED} LIMIT %s) AS counted), ARRAY(
    SELECT given.id FROM unnest(%s::text[]) WITH ORDINALITY AS given (id, place) WHERE {_IS_NEW}
    GROUP BY given.id ORDER BY min(given.place)
)
"""  # noqa: S608 - constants of the tables

_PORTAL = f"SELECT count(*) FROM users WHERE tenant_id = %s AND ({PORTAL})"  # noqa: S608 - the same
