"""Reads which items of a list may be shown now."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice

from api.database.batch_loader import BatchLoader
from api.database.engine import Pool
from api.database.prepared import text_array
from api.database.scope import TenantScope
from api.items.filter_sql import Condition, to_sql
from serving.contracts.filters import Filter

CHUNKS = (500, 5_000, 50_000)
"""A list is checked in growing chunks, up to these places. The first is mostly enough, whatever is left out."""
ANY_ITEM = Condition("TRUE")


def condition_on_items(filter_: Filter | None) -> Condition:
    """The filter as a condition on `item.metadata`; every item meets it where there is none."""
    return ANY_ITEM if filter_ is None else to_sql(filter_, "item.metadata")


# Lists are sent in the binary format (%b): as text, a thousand long ids take 18 ms of the event loop instead of 0.3.
class LiveItems:
    """The items of a tenant that are neither hidden nor deleted, and that a filter matches, at the moment of a read.

    Concurrent callers without a filter share one read of a list's first chunk; each then leaves out its own items. When
    a model server stops answering, all callers need popular items at the same moment. With a statement and a
    connection for each, the last of 32 callers waited 0.1 s.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._live = BatchLoader(self._read_live)

    async def first(
        self, scope: TenantScope, ids: Sequence[str], exclude: Iterable[str], condition: Condition, count: int
    ) -> list[int]:
        """Indices into `ids`, ascending, of the first `count` items that may be shown. Only `CHUNKS[-1]` are checked.

        condition: see `condition_on_items`.
        """
        left_out = list(exclude)
        found: list[int] = []
        start = 0
        for end in CHUNKS:
            if start < len(ids) and len(found) < count:
                part = ids[start:end]
                missing = count - len(found)
                if condition is ANY_ITEM and end == CHUNKS[0]:
                    places = await self._live_places(scope, part, set(left_out), missing)
                else:
                    places = await self._in_order(scope, list(part), left_out, condition, missing)
                found += [start + at for at in places]
            start = end
        return found

    async def _live_places(self, scope: TenantScope, ids: Sequence[str], exclude: set[str], count: int) -> list[int]:
        live = await self._live.load((scope, tuple(ids)))
        return list(islice((at for at in live if ids[at] not in exclude), count))

    async def _read_live(self, keys: list[tuple[TenantScope, tuple[str, ...]]]) -> list[list[int]]:
        """For each pair of a tenant and ids: the indices of the ids whose items are live, ascending."""
        reads = (self._pool.fetch(_LIVE_PLACES, scope.tenant_id, text_array(ids)) for scope, ids in keys)
        return [[at for (at,) in rows] for rows in await asyncio.gather(*reads)]

    async def others(
        self, scope: TenantScope, listed: Sequence[str], exclude: Iterable[str], condition: Condition, count: int
    ) -> list[str]:
        """The ids of at most `count` items that are not in a list, by id."""
        query = f"""
            SELECT item.id FROM items AS item
            WHERE item.tenant_id = %s AND item.is_active AND item.deleted_at IS NULL
                AND NOT item.id = ANY(%b::text[]) AND ({condition.text})
            ORDER BY item.id LIMIT %s
        """  # noqa: S608 - the condition's text is made of placeholders
        parameters = [scope.tenant_id, [*listed, *exclude], *condition.values, count]
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, parameters)
            return [row[0] for row in await cursor.fetchall()]

    async def newest(
        self, scope: TenantScope, exclude: Iterable[str], condition: Condition, count: int
    ) -> list[tuple[str, float]]:
        """The items that were added last, newest first, and how many seconds each is older than the newest of all."""
        query = f"""
            SELECT item.id, extract(epoch FROM (
                SELECT max(created_at) FROM items
                WHERE tenant_id = %s AND is_active AND deleted_at IS NULL
            ) - item.created_at)::float8
            FROM items AS item
            WHERE item.tenant_id = %s AND item.is_active AND item.deleted_at IS NULL
                AND NOT item.id = ANY(%b::text[]) AND ({condition.text})
            ORDER BY item.created_at DESC, item.id LIMIT %s
        """  # noqa: S608 - the condition's text is made of placeholders
        parameters = [scope.tenant_id, scope.tenant_id, list(exclude), *condition.values, count]
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, parameters)
            return [(row[0], row[1]) for row in await cursor.fetchall()]

    async def _in_order(
        self, scope: TenantScope, ids: list[str], exclude: list[str], condition: Condition, count: int
    ) -> list[int]:
        query = f"""
            SELECT candidate.place - 1
            FROM unnest(%b::text[]) WITH ORDINALITY AS candidate (id, place)
            JOIN items AS item ON item.tenant_id = %s AND item.id = candidate.id
            WHERE item.is_active AND item.deleted_at IS NULL AND NOT item.id = ANY(%b::text[]) AND ({condition.text})
            ORDER BY candidate.place LIMIT %s
        """  # noqa: S608 - the condition's text is made of placeholders
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, [ids, scope.tenant_id, exclude, *condition.values, count])
            return [row[0] for row in await cursor.fetchall()]


_LIVE_PLACES = """
SELECT candidate.place - 1
FROM unnest($2::text[]) WITH ORDINALITY AS candidate (id, place)
JOIN items AS item ON item.tenant_id = $1::text AND item.id = candidate.id
WHERE item.is_active AND item.deleted_at IS NULL
ORDER BY candidate.place
"""
