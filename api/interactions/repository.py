"""Stores interactions, and the users and items that come with them. A call has committed when it returns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from api.database.engine import Connection, Pool
from api.database.scope import TenantScope
from api.tenants.problems import TenantGone
from api.users.quota import COUNTED, users_over_quota
from configs.plans import Plan


@dataclass(frozen=True, slots=True)
class InteractionRow:
    """One new interaction: a row of `interactions` that is to be stored."""

    id: UUID
    user_id: str
    item_id: str
    interaction_type: str
    value: float | None
    occurred_at: datetime
    recommendation_id: UUID | None


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What was stored of several interactions. Those in none of these sets are of items that do not exist."""

    ids: set[UUID]
    refused_users: set[str]  # new users beyond the plan's limit
    refused_items: set[str]  # items that were to be created, beyond the plan's limit


class InteractionRepository:
    """The interactions of one tenant, within the limits of its plan."""

    def __init__(self, pool: Pool, scope: TenantScope, plan: Plan) -> None:
        self._pool = pool
        self._scope = scope
        self._tenant_id = scope.tenant_id
        self._plan = plan

    async def add(self, row: InteractionRow) -> bool:
        """Store one interaction and its user. Returns False, and stores nothing, where there is no such item.

        Where the plan limits users, it also returns False for a user whom the limit does not count yet: `add_all` then
        checks the limit.
        """
        parameters = {
            "tenant": self._tenant_id,
            "id": row.id,
            "user": row.user_id,
            "item": row.item_id,
            "type": row.interaction_type,
            "value": row.value,
            "at": row.occurred_at,
            "recommendation": row.recommendation_id,
        }
        statements = (_ADD_KNOWN, _ADD) if self._plan.user_limit is None else (_ADD_COUNTED,)
        async with self._pool.connection() as connection:
            for statement in statements:
                if (await connection.execute(statement, parameters)).rowcount == 1:
                    return True
            return False

    async def add_all(self, rows: Sequence[InteractionRow], create: Sequence[str] = ()) -> StoreResult:
        """Store many in one transaction, after creating those items of `create` that do not exist.

        Interactions are left out whose item does not exist, or whose new user or item is beyond the plan's limit.
        """
        async with self._pool.connection() as connection, connection.transaction():
            missing, refused_items = await self._to_create(connection, create) if create else ([], set())
            refused_users = await self._refused_users(connection, rows, missing)
            accepted = [each for each in rows if each.user_id not in refused_users]
            wanted = {each.item_id for each in accepted}
            if created := [id_ for id_ in missing if id_ in wanted]:
                await connection.execute(_CREATE, [self._tenant_id, await self._next_version(connection), created])
            if not accepted:
                return StoreResult(set(), refused_users, refused_items)
            # Not by `astuple`, which copies each value and holds the event loop for 25 ms.
            columns = [[getattr(row, field.name) for row in accepted] for field in fields(InteractionRow)]
            cursor = await connection.execute(_ADD_ALL, [*columns, *[self._tenant_id] * 3])
            return StoreResult({row[0] for row in await cursor.fetchall()}, refused_users, refused_items)

    async def _refused_users(
        self, connection: Connection, rows: Sequence[InteractionRow], to_create: Sequence[str]
    ) -> set[str]:
        """The new users beyond the plan's limit. Users none of whose items exists do not count: they are not stored."""
        if self._plan.user_limit is None:
            return set()
        items = list({each.item_id for each in rows})
        known = {row[0] for row in await (await connection.execute(_KNOWN, [self._tenant_id, items])).fetchall()}
        items_to_be = known | set(to_create)
        users = [each.user_id for each in rows if each.item_id in items_to_be]
        return await users_over_quota(connection, self._scope, users, self._plan.user_limit)

    async def _to_create(self, connection: Connection, ids: Sequence[str]) -> tuple[list[str], set[str]]:
        """The items of these ids that do not exist: first those within the plan's limit, then those beyond it."""
        missing = await self._missing(connection, ids)
        limit = self._plan.item_limit
        if limit is None or not missing:
            return missing, set()
        # From here on other writers of items wait, so that the last free place is given once. The items that they added
        # before are seen only now, so the missing ones are read again.
        await self._next_version(connection)
        missing = await self._missing(connection, missing)
        row = await (await connection.execute(_LIVE_ITEMS, [self._tenant_id])).fetchone()
        free = max(0, limit - row[0]) if row else 0
        return missing[:free], set(missing[free:])

    async def _missing(self, connection: Connection, ids: Sequence[str]) -> list[str]:
        known = await connection.execute(_MISSING, [list(ids), self._tenant_id])
        return [row[0] for row in await known.fetchall()]

    async def _next_version(self, connection: Connection) -> int:
        row = await (await connection.execute(_NEXT_VERSION, [self._tenant_id])).fetchone()
        if row is None:
            raise TenantGone
        return int(row[0])


_ITEM = "item AS (SELECT FROM items WHERE tenant_id = %(tenant)s AND id = %(item)s AND deleted_at IS NULL)"

_INSERT = """
INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, value, occurred_at, recommendation_id)
SELECT %(tenant)s, %(id)s, %(user)s, %(item)s, %(type)s, %(value)s, %(at)s, %(recommendation)s FROM
"""

# Each statement counts the change in the rows of the users, and says so, so that no trigger has to: see migration 0011.
_COUNTED = "counted AS MATERIALIZED (SELECT set_config('recommendai.history_counted', 'yes', true))"

# For a known user: an update alone costs less than an insert that finds a conflict.
_ADD_KNOWN = f"""
WITH {_COUNTED}, {_ITEM}, acting AS (
    UPDATE users SET last_active_at = GREATEST(last_active_at, %(at)s), history_version = history_version + 1
    WHERE tenant_id = %(tenant)s AND id = %(user)s AND EXISTS (SELECT FROM item)
    RETURNING id
)
{_INSERT} item, acting, counted
"""  # noqa: S608 - this module's constants

_ADD_COUNTED = _ADD_KNOWN.replace("AND EXISTS", f"AND {COUNTED} AND EXISTS")

_ADD = f"""
WITH {_COUNTED}, {_ITEM}, acting AS (
    INSERT INTO users AS known (tenant_id, id, last_active_at, history_version)
    SELECT %(tenant)s, %(user)s, %(at)s, 1 FROM item
    ON CONFLICT (tenant_id, id) DO UPDATE
    SET last_active_at = GREATEST(known.last_active_at, excluded.last_active_at),
        history_version = known.history_version + 1
)
{_INSERT} item, counted
"""  # noqa: S608 - the same

# Users are written in the order of their ids, so that two batches cannot deadlock. Lists are sent in the binary format
# (%b), which takes a fifth of the time on the event loop.
_ADD_ALL = f"""
WITH {_COUNTED}, new AS (
    SELECT sent.* FROM unnest(
        %b::uuid[], %b::text[], %b::text[], %b::text[], %b::real[], %b::timestamptz[], %b::uuid[]
    ) AS sent (id, user_id, item_id, type, value, at, recommendation_id)
    JOIN items ON items.tenant_id = %s AND items.id = sent.item_id AND items.deleted_at IS NULL
), acting AS (
    INSERT INTO users AS known (tenant_id, id, last_active_at, history_version)
    SELECT %s, user_id, max(at), 1 FROM new GROUP BY user_id ORDER BY user_id
    ON CONFLICT (tenant_id, id) DO UPDATE
    SET last_active_at = GREATEST(known.last_active_at, excluded.last_active_at),
        history_version = known.history_version + 1
)
INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, value, occurred_at, recommendation_id)
SELECT %s, id, user_id, item_id, type, value, at, recommendation_id FROM new, counted
RETURNING id
"""  # noqa: S608 - the same

_MISSING = """
SELECT DISTINCT wanted.id FROM unnest(%s::text[]) AS wanted (id)
WHERE NOT EXISTS (SELECT FROM items WHERE tenant_id = %s AND items.id = wanted.id AND deleted_at IS NULL)
ORDER BY wanted.id
"""

_KNOWN = "SELECT id FROM items WHERE tenant_id = %s AND id = ANY(%s::text[]) AND deleted_at IS NULL"

_LIVE_ITEMS = "SELECT live_items FROM catalogues WHERE tenant_id = %s"

_NEXT_VERSION = "UPDATE catalogues SET version = version + 1 WHERE tenant_id = %s RETURNING version"

_CREATE = """
INSERT INTO items AS item (tenant_id, version, id, metadata)
SELECT %s, %s, id, '{}' FROM unnest(%s::text[]) AS wanted (id)
ON CONFLICT (tenant_id, id) DO UPDATE
SET is_active = true, metadata = '{}', version = excluded.version, created_at = now(), updated_at = now(),
    deleted_at = NULL
WHERE item.deleted_at IS NOT NULL
"""
