"""What a user was shown and did not choose, for scenarios that rotate their items."""

from collections.abc import Mapping

from api.database.engine import Pool
from api.database.scope import TenantScope
from feature_store.online import ALL_INTERACTIONS

MAX_ANSWERS = 50
"""The newest answers of a user that are looked at."""
HALF_LIVES = 10
"""Older answers count for less than a thousandth of a showing."""


async def unchosen_showings(
    pool: Pool, scope: TenantScope, user_id: str, half_life_hours: float
) -> Mapping[str, float]:
    """By item: how often it was shown without an interaction since. With every half-life of its age a showing halves.

    Answers of the last moments may be missing, since impressions are written in the background.
    """
    rows = await pool.fetch(_SHOWINGS, scope.tenant_id, user_id, str(half_life_hours * 3_600))
    return dict(rows)


_SHOWINGS = f"""
WITH shown AS MATERIALIZED (
    SELECT item_ids, created_at FROM impressions
    WHERE tenant_id = $1 AND user_id = $2
        AND created_at > now() - {HALF_LIVES} * $3::float8 * interval '1 second'
    ORDER BY created_at DESC LIMIT {MAX_ANSWERS}
), chosen AS MATERIALIZED (
    SELECT item_id, max(occurred_at) AS last FROM {ALL_INTERACTIONS}
    WHERE tenant_id = $1 AND user_id = $2 AND occurred_at >= (SELECT min(created_at) FROM shown)
    GROUP BY item_id
)
SELECT item.id, sum(power(
    0.5::float8, greatest(0, extract(epoch FROM now() - shown.created_at)::float8) / $3::float8
))
FROM shown CROSS JOIN LATERAL unnest(shown.item_ids) AS item (id)
LEFT JOIN chosen ON chosen.item_id = item.id
WHERE chosen.last IS NULL OR chosen.last < shown.created_at
GROUP BY item.id
"""  # noqa: S608 - constants of this module
