"""The rows of interactions, and of the users whom they bring. One statement each: committed when it returns."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from uuid import UUID

from api.database.engine import Connection, Pool
from api.database.scope import TenantScope
from api.tenants.problems import TenantGone
from api.users.quota import refused_newcomers
from configs.plans import Plan


@dataclass(frozen=True, slots=True)
class Happened:
    """One interaction that is to be stored."""

    id: UUID
    user_id: str
    item_id: str
    interaction_type: str
    value: float | None
    occurred_at: datetime
    recommendation_id: UUID | None


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of several interactions. Those in none of these sets are of items that do not exist."""

    ids: set[UUID]
    refused_users: set[str]  # new, and more than the plan takes
    refused_items: set[str]  # that were to be made, and are more than the plan takes


class InteractionRepository:
    """The interactions of one tenant, within the limits of a plan."""

    def __init__(self, pool: Pool, scope: TenantScope, plan: Plan) -> None:
        self._pool = pool
        self._scope = scope
        self._tenant_id = scope.tenant_id
        self._plan = plan

    async def add(self, happened: Happened) -> bool:
        """Store one interaction and its user. False, and nothing stored, where there is no such item.

        Where the plan takes only so many users, also where the user is new: `add_all` then knows whether it may come.
        """
        parameters = {
            "tenant": self._tenant_id,
            "id": happened.id,
            "user": happened.user_id,
            "item": happened.item_id,
            "type": happened.interaction_type,
            "value": happened.value,
            "at": happened.occurred_at,
            "recommendation": happened.recommendation_id,
        }
        statements = (_ADD_KNOWN, _ADD) if self._plan.user_limit is None else (_ADD_KNOWN,)
        async with self._pool.connection() as connection:
            for statement in statements:
                if (await connection.execute(statement, parameters)).rowcount == 1:
                    return True
            return False

    async def add_all(self, happened: Sequence[Happened], create: Sequence[str] = ()) -> Stored:
        """Store many in one transaction, after making the items `create` that do not exist.

        Those are left out that the plan has no room for, and those of items that do not exist.
        """
        async with self._pool.connection() as connection, connection.transaction():
            missing, no_items = await self._to_create(connection, create) if create else ([], set())
            no_users = await self._refused_users(connection, happened, missing)
            welcome = [each for each in happened if each.user_id not in no_users]
            wanted = {each.item_id for each in welcome}
            if makes := [id_ for id_ in missing if id_ in wanted]:
                await connection.execute(_CREATE, [self._tenant_id, await self._next_version(connection), makes])
            if not welcome:
                return Stored(set(), no_users, no_items)
            columns = zip(*map(astuple, welcome), strict=True)
            cursor = await connection.execute(_ADD_ALL, [*map(list, columns), *[self._tenant_id] * 3])
            return Stored({row[0] for row in await cursor.fetchall()}, no_users, no_items)

    async def _refused_users(
        self, connection: Connection, happened: Sequence[Happened], to_create: Sequence[str]
    ) -> set[str]:
        """Those new users who are too many. Whose items all do not exist would not come to be."""
        if self._plan.user_limit is None:
            return set()
        items = list({each.item_id for each in happened})
        known = {row[0] for row in await (await connection.execute(_KNOWN, [self._tenant_id, items])).fetchall()}
        items_to_be = known | set(to_create)
        users = [each.user_id for each in happened if each.item_id in items_to_be]
        return await refused_newcomers(connection, self._scope, users, self._plan.user_limit)

    async def _to_create(self, connection: Connection, ids: Sequence[str]) -> tuple[list[str], set[str]]:
        """Of these items the missing ones that the plan has room for, and those that it has none for."""
        missing = await self._missing(connection, ids)
        limit = self._plan.item_limit
        if limit is None or not missing:
            return missing, set()
        # Other writers of items wait, so that the last place is given once; what they did is seen only now.
        await self._next_version(connection)
        missing = await self._missing(connection, missing)
        row = await (await connection.execute(_LIVE_ITEMS, [self._tenant_id])).fetchone()
        room = max(0, limit - row[0]) if row else 0
        return missing[:room], set(missing[room:])

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

# Of a user who is there: an update alone costs less than an insert that finds a conflict.
_ADD_KNOWN = f"""
WITH {_ITEM}, acting AS (
    UPDATE users SET last_active_at = GREATEST(last_active_at, %(at)s)
    WHERE tenant_id = %(tenant)s AND id = %(user)s AND EXISTS (SELECT FROM item)
    RETURNING id
)
{_INSERT} item, acting
"""  # noqa: S608 - this module's constants

_ADD = f"""
WITH {_ITEM}, acting AS (
    INSERT INTO users AS known (tenant_id, id, last_active_at)
    SELECT %(tenant)s, %(user)s, %(at)s FROM item
    ON CONFLICT (tenant_id, id) DO UPDATE SET last_active_at = excluded.last_active_at
    WHERE known.last_active_at IS NULL OR known.last_active_at < excluded.last_active_at
)
{_INSERT} item
"""  # noqa: S608 - the same

# Users in the order of their ids, so that two batches never wait for each other in a circle.
_ADD_ALL = """
WITH happened AS (
    SELECT row.* FROM unnest(
        %s::uuid[], %s::text[], %s::text[], %s::text[], %s::real[], %s::timestamptz[], %s::uuid[]
    ) AS row (id, user_id, item_id, type, value, at, recommendation_id)
    JOIN items ON items.tenant_id = %s AND items.id = row.item_id AND items.deleted_at IS NULL
), acting AS (
    INSERT INTO users AS known (tenant_id, id, last_active_at)
    SELECT %s, user_id, max(at) FROM happened GROUP BY user_id ORDER BY user_id
    ON CONFLICT (tenant_id, id) DO UPDATE SET last_active_at = excluded.last_active_at
    WHERE known.last_active_at IS NULL OR known.last_active_at < excluded.last_active_at
)
INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, value, occurred_at, recommendation_id)
SELECT %s, id, user_id, item_id, type, value, at, recommendation_id FROM happened
RETURNING id
"""

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
