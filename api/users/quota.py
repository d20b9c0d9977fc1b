"""The user quota of a plan. It counts end users, and each portal user who has an interaction."""

from collections.abc import Sequence

from api.database.engine import Connection
from api.database.scope import TenantScope
from api.users.tables import PORTAL


async def users_over_quota(connection: Connection, scope: TenantScope, user_ids: Sequence[str], limit: int) -> set[str]:
    """Of these ids, those that are not counted yet and exceed the limit. Earlier ids come first; counted users go on.

    Until the transaction of the connection ends, other transactions that add users of the tenant wait, so that the last
    free place is given once.
    """
    tenant = scope.tenant_id
    if not await (await connection.execute(_SOME_NEW, [list(user_ids), tenant])).fetchone():
        return set()
    await connection.execute(LOCK, [tenant])
    # Another transaction may have added users during the wait, so they are counted after it.
    row = await (await connection.execute(_COUNT_AND_NEW, [tenant, limit, list(user_ids), tenant])).fetchone()
    known, new = row or (0, [])
    return set(new[max(0, limit - known) :])


async def count_uncounted_users(connection: Connection, scope: TenantScope) -> int:
    """How many users of the tenant the quota does not count."""
    row = await (await connection.execute(_UNCOUNTED, [scope.tenant_id])).fetchone()
    return 0 if row is None else int(row[0])


LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('user quota ' || %s, 0))"

COUNTED = f"(NOT ({PORTAL}) OR history_version > 0)"
"""SQL condition on `users`: the quota counts the user. A user's first interaction sets `history_version` to 1."""

_IS_NEW = f"NOT EXISTS (SELECT FROM users WHERE users.tenant_id = %s AND users.id = given.id AND {COUNTED})"

_SOME_NEW = f"SELECT true FROM unnest(%s::text[]) AS given (id) WHERE {_IS_NEW} LIMIT 1"  # noqa: S608 - this module's

QUOTA_USERS = f"users WHERE tenant_id = %s AND {COUNTED}"
"""The users that the quota counts."""

# The count stops at the limit, so that it costs the same for a tenant of any size.
_COUNT_AND_NEW = f"""
SELECT (SELECT count(*) FROM (SELECT FROM {QUOTA_USERS} LIMIT %s) AS counted), ARRAY(
    SELECT given.id FROM unnest(%s::text[]) WITH ORDINALITY AS given (id, place) WHERE {_IS_NEW}
    GROUP BY given.id ORDER BY min(given.place)
)
"""  # noqa: S608 - constants of the tables

_UNCOUNTED = f"SELECT count(*) FROM users WHERE tenant_id = %s AND ({PORTAL}) AND history_version = 0"  # noqa: S608 - the same
