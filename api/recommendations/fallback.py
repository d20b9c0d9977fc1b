"""Time-decayed popularity from the database. It answers, labelled as such, while no model can."""

from dataclasses import dataclass

from api.database.engine import Pool
from api.database.refresh_ahead_cache import RefreshAheadCache
from api.database.scope import TenantScope
from api.recommendations.filter_sql import Condition, to_sql
from feature_store.interaction_types import EVENT_WEIGHT_SQL
from serving.contracts.filters import Filter
from serving.contracts.messages import RankedItem

ALGORITHM = "popularity"
EXPLANATION = "Popular with other users lately"
WINDOW = 50_000
"""Newest interactions of the tenant that popularity is computed from."""
HALF_LIFE_DAYS = 30.0
"""An event of this age weighs half as much as a new one."""
FRESH_SECONDS = 10.0
CHUNKS = (500, 5_000, WINDOW)
"""Popular items are checked in growing chunks. The first is mostly enough, whatever is excluded or filtered out."""


@dataclass(frozen=True, slots=True)
class PopularItems:
    """The items of the window, most popular first; equally popular ones by id."""

    ids: list[str]
    scores: list[float]  # in [0, 1): x / (1 + x), where x is the decayed weight


# Lists are sent in the binary format (%b): as text, a thousand long ids take 18 ms of the event loop instead of 0.3.
class Fallback:
    """Ranks popular items from the database alone.

    It applies `filter`, `exclude` and the policy on seen items. It ignores the history, `diversity` and the session.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._popularity: RefreshAheadCache[str, PopularItems] = RefreshAheadCache(self._load, FRESH_SECONDS, size=100)

    async def rank(
        self, scope: TenantScope, count: int, exclude: list[str], filter_: Filter | None
    ) -> list[RankedItem]:
        """At most `count` live items: popular ones first, then items without recent interactions, with score 0."""
        condition = to_sql(filter_, "item.metadata") if filter_ is not None else Condition("TRUE")
        popular = await self._popularity.get(scope.tenant_id)
        ranked: list[RankedItem] = []
        start = 0
        for end in CHUNKS:
            if start < len(popular.ids) and len(ranked) < count:
                part = await self._live(scope, popular.ids[start:end], exclude, condition, count - len(ranked))
                ranked += [_ranked(popular.ids[start + at], popular.scores[start + at]) for at in part]
            start = end
        if len(ranked) < count:
            rest = await self._without_interactions(scope, popular.ids, exclude, condition, count - len(ranked))
            ranked += [_ranked(id_, 0.0) for id_ in rest]
        return ranked

    async def _load(self, tenant_id: str) -> PopularItems:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                _POPULARITY, {"tenant": tenant_id, "window": WINDOW, "half_life": HALF_LIFE_DAYS * 86_400}
            )
            rows = await cursor.fetchall()
        return PopularItems([row[0] for row in rows], [row[1] for row in rows])

    async def _live(
        self, scope: TenantScope, ids: list[str], exclude: list[str], condition: Condition, count: int
    ) -> list[int]:
        """Indices into `ids`, ascending, of the first `count` items that may be shown."""
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

    async def _without_interactions(
        self, scope: TenantScope, popular: list[str], exclude: list[str], condition: Condition, count: int
    ) -> list[str]:
        query = f"""
            SELECT item.id FROM items AS item
            WHERE item.tenant_id = %s AND item.is_active AND item.deleted_at IS NULL
                AND NOT item.id = ANY(%b::text[]) AND ({condition.text})
            ORDER BY item.id LIMIT %s
        """  # noqa: S608 - the condition's text is made of placeholders
        parameters = [scope.tenant_id, [*popular, *exclude], *condition.values, count]
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, parameters)
            return [row[0] for row in await cursor.fetchall()]


def _ranked(id_: str, score: float) -> RankedItem:
    return RankedItem(id_, score, ALGORITHM, EXPLANATION, [])


# An event of age t weighs 1 / (1 + t / T), with the half-life T. Unlike an exponential, this keeps differences between
# items whose events are years old. Ages count from the newest event, so that the scores of a tenant without new events
# do not fade.
_POPULARITY = f"""
WITH newest AS (
    SELECT item_id, {EVENT_WEIGHT_SQL} AS weight, occurred_at
    FROM interactions WHERE tenant_id = %(tenant)s ORDER BY occurred_at DESC LIMIT %(window)s
), decayed AS (
    SELECT item_id, sum(weight / (1 + extract(epoch FROM last - occurred_at)::float8 / %(half_life)s)) AS weight
    FROM newest CROSS JOIN (SELECT max(occurred_at) AS last FROM newest) AS clock
    GROUP BY item_id
)
SELECT item_id, round((weight / (1 + weight))::numeric, 6)::float8
FROM decayed ORDER BY weight DESC, item_id COLLATE "C"
"""  # noqa: S608 - the weights are numbers of this code base
