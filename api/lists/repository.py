"""Reads and deletes the lists that the pipeline makes, and reads what a user saw last."""

import json
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.items.filter_sql import Condition
from api.lists.tables import ItemList
from serving.contracts.filters import Filter, parse_filter

CHUNKS_OF_STORED = ((1, 200), (201, 1_000))
"""A stored list is checked in two parts, and has no more places. The first is mostly enough."""
MAX_RECENT = 1_000
"""Newest interactions of a user that are read for what the user saw last."""
_OF_USER = 'WHERE tenant_id = %s AND user_id = %s ORDER BY occurred_at DESC, item_id COLLATE "C" DESC'
_NEWEST = (
    f"(SELECT item_id, occurred_at FROM interactions {_OF_USER} LIMIT {MAX_RECENT}) UNION ALL "  # noqa: S608
    f"(SELECT item_id, occurred_at FROM archived_events {_OF_USER} LIMIT {MAX_RECENT})"
)


@dataclass(frozen=True, slots=True)
class SegmentReference:
    """What a read of a segment's list needs of the segment."""

    of_items: bool
    has_behaviour: bool
    filter: Filter | None


class StoredLists:
    """The lists of all tenants in the database."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def top(
        self,
        scope: TenantScope,
        source: str,
        of_item: str,
        exclude: list[str],
        condition: Condition,
        count: int,
    ) -> list[tuple[str, float]]:
        """The first `count` items of a list that may be shown, with their scores; none where there is no such list."""
        found: list[tuple[str, float]] = []
        for part in CHUNKS_OF_STORED:
            if len(found) < count:
                found += await self._part(scope, source, of_item, part, exclude, condition, count - len(found))
        return found

    async def _part(
        self,
        scope: TenantScope,
        source: str,
        of_item: str,
        part: tuple[int, int],
        exclude: list[str],
        condition: Condition,
        count: int,
    ) -> list[tuple[str, float]]:
        """The same of the places `part` of the list, from 1."""
        # Of a slice the planner expects few rows, and so looks each up by the index instead of reading all items.
        query = f"""
            SELECT listed.id, listed.score
            FROM item_lists AS list
            CROSS JOIN LATERAL unnest(list.item_ids[%s:%s], list.scores[%s:%s])
                WITH ORDINALITY AS listed (id, score, place)
            JOIN items AS item ON item.tenant_id = list.tenant_id AND item.id = listed.id
            WHERE list.tenant_id = %s AND list.source = %s AND list.of_item = %s
                AND item.is_active AND item.deleted_at IS NULL AND NOT item.id = ANY(%b::text[]) AND ({condition.text})
            ORDER BY listed.place LIMIT %s
        """  # noqa: S608 - the condition's text is made of placeholders
        parameters = [*part, *part, scope.tenant_id, source, of_item, exclude, *condition.values, count]
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, parameters)
            return [(row[0], row[1]) for row in await cursor.fetchall()]

    async def recently_viewed(
        self, scope: TenantScope, user_id: str, exclude: list[str], condition: Condition, count: int
    ) -> list[tuple[str, float]]:
        """The items that a user had to do with last, newest first, and how many seconds each is older than the newest.

        A user who is unknown has none.
        """
        query = f"""
            WITH recent AS MATERIALIZED (
                SELECT item_id, occurred_at FROM ({_NEWEST}) AS of_user
                ORDER BY occurred_at DESC, item_id COLLATE "C" DESC LIMIT {MAX_RECENT}
            ), seen AS (SELECT item_id, max(occurred_at) AS at FROM recent GROUP BY item_id)
            SELECT item.id, extract(epoch FROM (SELECT max(at) FROM seen) - seen.at)::float8
            FROM seen JOIN items AS item ON item.tenant_id = %s AND item.id = seen.item_id
            WHERE item.is_active AND item.deleted_at IS NULL AND NOT item.id = ANY(%b::text[]) AND ({condition.text})
            ORDER BY seen.at DESC, item.id COLLATE "C" DESC LIMIT %s
        """  # noqa: S608 - the condition's text is made of placeholders
        parameters = [*(scope.tenant_id, user_id) * 2, scope.tenant_id, exclude, *condition.values, count]
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, parameters)
            return [(row[0], row[1]) for row in await cursor.fetchall()]

    async def segment(self, scope: TenantScope, segment_id: UUID) -> SegmentReference | None:
        """A segment; None where the tenant has none of this id."""
        rows = await self._pool.fetch(_SEGMENT, scope.tenant_id, str(segment_id))
        if not rows:
            return None
        of_items, has_behaviour, document = rows[0]
        filter_ = None if document is None else parse_filter(json.loads(document))
        return SegmentReference(of_items, has_behaviour, filter_)


async def delete_lists(session: AsyncSession, scope: TenantScope, source: str) -> None:
    """Delete all lists of a source."""
    await session.exec(
        delete(ItemList).where(col(ItemList.tenant_id) == scope.tenant_id, col(ItemList.source) == source)
    )


_SEGMENT = """
SELECT kind = 'items', behaviour IS NOT NULL, filter::text FROM segments WHERE tenant_id = $1 AND id = $2::uuid
"""
