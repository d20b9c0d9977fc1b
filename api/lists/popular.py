"""Time-decayed popularity of a tenant's items, from the database."""

from dataclasses import dataclass

from api.database.engine import Pool
from api.database.refresh_ahead_cache import RefreshAheadCache
from api.database.scope import TenantScope
from feature_store.interaction_types import EVENT_WEIGHT_SQL, HALF_LIFE_DAYS

WINDOW = 50_000
"""Newest interactions of the tenant that popularity is computed from."""
FRESH_SECONDS = 10.0
PREPARED_SECONDS = 600.0
"""After this time, what was prepared is read again."""
MAX_TENANTS = 100
"""Whose popular items are kept."""


@dataclass(frozen=True, slots=True)
class PopularItems:
    """The items of the window, most popular first; equally popular ones by id."""

    ids: list[str]
    scores: list[float]  # in [0, 1): x / (1 + x), where x is the decayed weight


class PopularityReader:
    """Popular items by tenant, at most `FRESH_SECONDS` old where somebody asks all the time.

    Who asks for the first time in a while may get items that were prepared earlier, while newer ones are read: the
    statement takes 0.1 s.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._kept: RefreshAheadCache[str, PopularItems] = RefreshAheadCache(
            self._load, FRESH_SECONDS, MAX_TENANTS, stale_seconds=2 * PREPARED_SECONDS
        )

    def prepare(self, scope: TenantScope) -> None:
        """Read the popular items in the background, unless they were read lately."""
        self._kept.keep(scope.tenant_id, PREPARED_SECONDS)

    async def of(self, scope: TenantScope) -> PopularItems:
        """The popular items of a tenant, hidden and deleted ones included."""
        return await self._kept.get(scope.tenant_id)

    async def _load(self, tenant_id: str) -> PopularItems:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                _POPULARITY, {"tenant": tenant_id, "window": WINDOW, "half_life": HALF_LIFE_DAYS * 86_400}
            )
            rows = await cursor.fetchall()
        return PopularItems([row[0] for row in rows], [row[1] for row in rows])


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
