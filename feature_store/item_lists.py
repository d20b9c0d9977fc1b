"""Lists of items that no model makes: what rises, what is bought together, what a group chooses.

Windows end at the tenant's newest event, so that the lists of a tenant without new events do not empty. A list names no
item of fewer than `LEAST_USERS` users, so that none shows what a single person did.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import betaincinv

from feature_store import columns as c
from feature_store.interaction_types import HALF_LIFE_DAYS, SEEN_TYPES
from feature_store.lake_events import LakeEvents
from feature_store.schemas import LISTED_ITEMS

RECENT_DAYS = 7
PAST_DAYS = 28
"""Days before the recent ones that an item's rise is measured against."""
CONFIDENCE = 0.95
LEAST_USERS = 3
MAX_LISTED = 1_000
"""Items of one list."""
MAX_NEIGHBOURS = 50
"""Items in the list of one item."""
MAX_BASKET = 50
"""Distinct items of a basket; a larger one says little on what belongs together, and its pairs grow with the square."""
MAX_BASKETS = 200_000
"""Newest baskets that are counted."""
SHRINKAGE = 10.0
"""Added to the denominator of the cosine, so that pairs of few baskets score low."""
IN_PLACE_OF_PURCHASES = "like"
"""The type of interaction that makes baskets where a tenant records no purchases."""

# A user counts once for an item and window, however often it comes back: events of one user are not independent.
_USERS_BY_WINDOW = f"""
WITH clock AS (SELECT max({c.TIMESTAMP}) AS last FROM events), visits AS (
    SELECT DISTINCT {c.ITEM}, {c.USER_ID}, {c.TIMESTAMP} > last - INTERVAL {RECENT_DAYS} DAY AS is_recent
    FROM events, clock WHERE {c.TIMESTAMP} > last - INTERVAL {RECENT_DAYS + PAST_DAYS} DAY
)
SELECT {c.ITEM_ID}, count(*) FILTER (is_recent) AS recent, count(*) FILTER (NOT is_recent) AS past,
    any_value({c.IS_ACTIVE}) AS {c.IS_ACTIVE}
FROM visits JOIN catalogue USING ({c.ITEM}) GROUP BY {c.ITEM_ID} ORDER BY {c.ITEM_ID}
"""  # noqa: S608 - constants of this code base

_BASKETS = f"""
CREATE OR REPLACE TEMP TABLE baskets AS
WITH per_day AS (
    SELECT {c.USER_ID}, {c.TIMESTAMP}::DATE AS day, list(DISTINCT {c.ITEM}) AS items
    FROM events WHERE {c.INTERACTION_TYPE} = ? GROUP BY ALL
    HAVING count(DISTINCT {c.ITEM}) <= {MAX_BASKET}
    ORDER BY day DESC, {c.USER_ID} LIMIT {MAX_BASKETS}
)
SELECT (row_number() OVER ())::INTEGER AS basket, dense_rank() OVER (ORDER BY {c.USER_ID})::INTEGER AS buyer,
    unnest(items) AS {c.ITEM} FROM per_day
"""  # noqa: S608 - constants of this code base

_BOUGHT_TOGETHER = f"""
WITH sizes AS (SELECT {c.ITEM}, count(*) AS n FROM baskets GROUP BY {c.ITEM}), pairs AS NOT MATERIALIZED (
    SELECT a.{c.ITEM} AS a, b.{c.ITEM} AS b, a.buyer
    FROM baskets AS a JOIN baskets AS b ON a.basket = b.basket AND a.{c.ITEM} < b.{c.ITEM}
), frequent AS (
    SELECT a, b, count(*) AS together FROM pairs GROUP BY ALL
    HAVING count(*) >= {LEAST_USERS} AND min(buyer) < max(buyer)
), shared AS (
    SELECT a, b FROM pairs SEMI JOIN frequent USING (a, b) GROUP BY ALL HAVING count(DISTINCT buyer) >= {LEAST_USERS}
), scored AS (
    SELECT a, b, together / (sqrt(of_a.n * of_b.n) + {SHRINKAGE}) AS {c.SCORE}
    FROM frequent SEMI JOIN shared USING (a, b)
    JOIN sizes AS of_a ON of_a.{c.ITEM} = a JOIN sizes AS of_b ON of_b.{c.ITEM} = b
), both_ways AS (SELECT a AS one, b AS other, {c.SCORE} FROM scored UNION ALL SELECT b, a, {c.SCORE} FROM scored)
SELECT one.{c.ITEM_ID} AS {c.OF_ITEM}, other.{c.ITEM_ID} AS {c.ITEM_ID},
    (row_number() OVER (PARTITION BY one.{c.ITEM} ORDER BY {c.SCORE} DESC, other.{c.ITEM_ID}))::INTEGER AS {c.RANK},
    round({c.SCORE}, 6) AS {c.SCORE}
FROM both_ways
JOIN catalogue AS one ON one.{c.ITEM} = both_ways.one
JOIN catalogue AS other ON other.{c.ITEM} = both_ways.other AND other.{c.IS_ACTIVE}
QUALIFY {c.RANK} <= {MAX_NEIGHBOURS}
ORDER BY {c.OF_ITEM}, {c.RANK}
"""  # noqa: S608 - constants of this code base

_CHOSEN = f"""
WITH clock AS (SELECT max({c.TIMESTAMP}) AS last FROM events), decayed AS (
    SELECT {c.ITEM}, sum({c.WEIGHT} / (1 + epoch(last - {c.TIMESTAMP}) / {HALF_LIFE_DAYS * 86_400})) AS w
    FROM events SEMI JOIN members USING ({{member}}) CROSS JOIN clock
    GROUP BY {c.ITEM} HAVING count(DISTINCT {c.USER_ID}) >= {{least}}
)
SELECT '' AS {c.OF_ITEM}, {c.ITEM_ID}, (row_number() OVER (ORDER BY w DESC, {c.ITEM_ID}))::INTEGER AS {c.RANK},
    round(w / (1 + w), 6) AS {c.SCORE}
FROM decayed JOIN catalogue USING ({c.ITEM}) WHERE {c.IS_ACTIVE}
ORDER BY {c.RANK} LIMIT {MAX_LISTED}
"""  # noqa: S608 - constants of this code base


def rate_ratio_lower_bounds(
    recent: npt.NDArray[np.int64], past: npt.NDArray[np.int64], recent_total: int, past_total: int
) -> npt.NDArray[np.float64]:
    """Lower bounds of the ratios of two Poisson rates, `(recent / recent_total) / (past / past_total)`.

    Given `recent + past`, the recent count is binomial with the probability `p = ratio * recent_total / (ratio *
    recent_total + past_total)` (Przyborowski and Wilenski, 1940). The exact bound of Clopper and Pearson (1934) on `p`
    therefore gives an exact bound on the ratio, as in R's `poisson.test` (Fay, 2010, "Two-sided exact tests and
    matching confidence intervals for discrete data", The R Journal 2(1)). Of the two-sided interval of `CONFIDENCE`.

    Args:
        recent, past: int64 [n] counts; `recent` of at least 1 where the bound is to be above 0.
        recent_total, past_total: what the counts are shares of, the two exposures.

    Returns:
        float64 [n]; 0 where `recent` is 0, and everywhere where one of the totals is 0: nothing can be compared then.
    """
    if recent_total == 0 or past_total == 0:
        return np.zeros(len(recent))
    p = np.where(recent > 0, betaincinv(np.maximum(recent, 1), past + 1, (1 - CONFIDENCE) / 2), 0.0)
    bounds: npt.NDArray[np.float64] = p / (1 - p) * (past_total / recent_total)
    return bounds


def trending(events: LakeEvents) -> pa.Table:
    """The items that rise most against their own past (LISTED_ITEMS), all of them with a rise that is shown.

    An item's rate is the share of its users in all pairs of a user and an item, in the last `RECENT_DAYS` and in the
    `PAST_DAYS` before them. So a week in which everything is busier lifts nothing. Items are ordered by the lower
    bound `r` of the ratio of the two rates, and listed where it is above 1. The score is `1 - 1 / r`: the part of the
    recent rate that the past does not explain, at least.
    """
    counts = events.table(_USERS_BY_WINDOW)
    recent, past = counts["recent"].to_numpy(), counts["past"].to_numpy()
    bounds = rate_ratio_lower_bounds(recent, past, int(recent.sum()), int(past.sum()))
    listed = (bounds > 1) & (recent >= LEAST_USERS) & counts[c.IS_ACTIVE].to_numpy(zero_copy_only=False)
    order = np.argsort(-bounds, kind="stable")  # equal ones by id, as the counts are
    order = order[listed[order]][:MAX_LISTED]
    return pa.table(
        {
            c.OF_ITEM: [""] * len(order),
            c.ITEM_ID: counts[c.ITEM_ID].take(order),
            c.RANK: np.arange(1, len(order) + 1),
            c.SCORE: np.round(1 - 1 / bounds[order], 6),
        }
    ).cast(LISTED_ITEMS)


def basket_type(events: LakeEvents) -> str:
    """The type of interaction that makes baskets: purchases, or likes where the tenant records no purchases."""
    (purchase,) = SEEN_TYPES["bought"]
    query = f"SELECT count(*) FROM events WHERE {c.INTERACTION_TYPE} = ?"  # noqa: S608 - constants
    return purchase if events.value(query, [purchase]) else IN_PLACE_OF_PURCHASES


def bought_together(events: LakeEvents, kind: str) -> pa.Table:
    """For each item, the items that are in the same baskets (LISTED_ITEMS).

    A basket is what one user bought on one day, in UTC. The score is the shrunk cosine of two items over baskets, the
    similarity of item-to-item filtering (Linden, Smith and York, 2003): `together / (sqrt(n_a * n_b) + SHRINKAGE)`.

    kind: see `basket_type`.
    """
    events.run(_BASKETS, [kind])
    return events.table(_BOUGHT_TOGETHER).cast(LISTED_ITEMS)


def chosen_by_members(events: LakeEvents) -> pa.Table:
    """The items that the users of the table `members (user_id)` choose (LISTED_ITEMS), by decayed popularity."""
    return events.table(_CHOSEN.format(member=c.USER_ID, least=LEAST_USERS)).cast(LISTED_ITEMS)


def popular_members(events: LakeEvents) -> pa.Table:
    """The items of the table `members (item)` that have events (LISTED_ITEMS), by decayed popularity."""
    return events.table(_CHOSEN.format(member=c.ITEM, least=1)).cast(LISTED_ITEMS)
