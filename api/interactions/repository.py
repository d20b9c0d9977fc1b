"""The rows of interactions, and of the users whom they bring. One statement each: committed when it returns."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.items.catalogue import TenantGone


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


class InteractionRepository:
    """The interactions of one tenant."""

    def __init__(self, pool: Pool, scope: TenantScope) -> None:
        self._pool = pool
        self._tenant_id = scope.tenant_id

    async def add(self, happened: Happened) -> bool:
        """Store one interaction and its user. False, and nothing stored, where there is no such item."""
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
        async with self._pool.connection() as connection:
            return (await connection.execute(_ADD, parameters)).rowcount == 1

    async def add_all(self, happened: Sequence[Happened], create: Sequence[str] = ()) -> set[UUID]:
        """Store many in one transaction, after making the items `create` that do not exist; the ids that were stored.

        Those of items that do not exist are left out.
        """
        async with self._pool.connection() as connection, connection.transaction():
            if create:
                await self._create_items(connection, create)
            columns = zip(*map(astuple, happened), strict=True)
            cursor = await connection.execute(_ADD_ALL, [*map(list, columns), *[self._tenant_id] * 3])
            return {row[0] for row in await cursor.fetchall()}

    async def _create_items(self, connection: AsyncConnection[TupleRow], ids: Sequence[str]) -> None:
        known = await connection.execute(_MISSING, [list(ids), self._tenant_id])
        if missing := [row[0] for row in await known.fetchall()]:
            row = await (await connection.execute(_NEXT_VERSION, [self._tenant_id])).fetchone()
            if row is None:
                raise TenantGone
            await connection.execute(_CREATE, [self._tenant_id, row[0], missing])


_ADD = """
WITH item AS (
    SELECT FROM items WHERE tenant_id = %(tenant)s AND id = %(item)s AND deleted_at IS NULL
), acting AS (
    INSERT INTO users AS known (tenant_id, id, last_active_at)
    SELECT %(tenant)s, %(user)s, %(at)s FROM item
    ON CONFLICT (tenant_id, id) DO UPDATE SET last_active_at = excluded.last_active_at
    WHERE known.last_active_at IS NULL OR known.last_active_at < excluded.last_active_at
)
INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, value, occurred_at, recommendation_id)
SELECT %(tenant)s, %(id)s, %(user)s, %(item)s, %(type)s, %(value)s, %(at)s, %(recommendation)s FROM item
"""

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
"""

_NEXT_VERSION = "UPDATE catalogues SET version = version + 1 WHERE tenant_id = %s RETURNING version"

_CREATE = """
INSERT INTO items AS item (tenant_id, version, id, metadata)
SELECT %s, %s, id, '{}' FROM unnest(%s::text[]) AS wanted (id)
ON CONFLICT (tenant_id, id) DO UPDATE
SET is_active = true, metadata = '{}', version = excluded.version, created_at = now(), updated_at = now(),
    deleted_at = NULL
WHERE item.deleted_at IS NOT NULL
"""
