"""Reads what came of the answers that a tenant's users were shown, by whether the user was held out."""
# ruff: noqa: S608 -- statements are made of constants of this code base; values are parameters

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.analytics.intervals import FollowedSums
from api.database.scope import TenantScope
from api.database.session import allow_statements
from feature_store.attribution import ATTRIBUTION_HOURS, FOLLOWED_ANSWER, followed_answer_joins
from feature_store.interaction_types import EVENT_WEIGHT_SQL

STATEMENT_SECONDS = 20.0
"""What the figures may take. A request that takes longer is answered with 503."""
NEW_ITEM_DAYS = 30
"""An item that was added so many days before it was shown, or less, was new."""


@dataclass(frozen=True, slots=True)
class AnswerSelection:
    """The answers that figures are about. Of users who are held out, family and release do not matter."""

    since: datetime
    window_hours: int  # within which an interaction follows
    scenario: str | None = None
    family: str | None = None
    release: str | None = None
    segment: UUID | None = None  # of users, as of now


@dataclass(frozen=True, slots=True)
class AnswerFigures:
    """What came of the answers to one of the two groups of users."""

    sums: FollowedSums
    interactions: int
    purchases: int
    value: float  # the event weights of the purchases, added up
    seen: int  # answers of which it is known that something was seen
    items_seen: int
    items_shown: int
    new_items_shown: int
    distinct_items: int  # of the items shown, those that are in the catalogue now
    catalogue_items: int
    milliseconds: tuple[float, float] | None  # median and 95th percentile; None where no time was recorded


NO_ANSWERS = AnswerFigures(FollowedSums(0, 0, 0, 0, 0, 0), 0, 0, 0.0, 0, 0, 0, 0, 0, 0, None)


class AnswerFiguresRepository:
    """What came of one tenant's answers, in one snapshot. Create it before the session's first query."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def figures(self, wanted: AnswerSelection) -> dict[bool, AnswerFigures]:
        """By whether users were held out. A group without answers is missing.

        Raises SQLAlchemy's DBAPIError for a statement that takes longer than STATEMENT_SECONDS.
        """
        connection = await self._session.connection()
        await connection.execute(_ONE_SNAPSHOT)
        await allow_statements(self._session, STATEMENT_SECONDS)
        parameters = {
            "tenant": self._tenant_id,
            "since": wanted.since,
            "hours": wanted.window_hours,
            "scenario": wanted.scenario,
            "family": wanted.family,
            "release": wanted.release,
            "segment": wanted.segment,
        }
        # The bound is passed as a value. For a subquery the planner would assume that a third of the table matches.
        parameters["next_xid"] = await self._value(_COUNTED_UP_TO) or "0"
        statement = _statement(wanted)
        used = {name: value for name, value in parameters.items() if f":{name}" in statement}
        rows = (await connection.execute(text(statement), used)).mappings().all()
        return {row["holdout"]: _figures(row) for row in rows}

    async def has_scenario(self, scenario: str) -> bool:
        """Whether the tenant has this scenario now. One that was deleted may have answers still."""
        return bool(await self._value(_HAS_SCENARIO, scenario=scenario))

    async def kind_of_segment(self, segment: UUID) -> str | None:
        """`users` or `items`; None where the tenant has no such segment."""
        kind: str | None = await self._value(_KIND_OF_SEGMENT, segment=segment)
        return kind

    async def _value(self, statement: TextClause, **parameters: Any) -> Any:
        connection = await self._session.connection()
        return (await connection.execute(statement, {"tenant": self._tenant_id, **parameters})).scalar_one_or_none()


def _figures(row: Any) -> AnswerFigures:
    sums = FollowedSums(
        *(int(row[name]) for name in ("users", "shown", "followed", "shown_squared", "followed_squared", "product"))
    )
    times = row["milliseconds"]
    return AnswerFigures(
        sums,
        interactions=int(row["interactions"]),
        purchases=int(row["purchases"]),
        value=float(row["value"]),
        seen=int(row["seen"]),
        items_seen=int(row["items_seen"]),
        items_shown=int(row["items_shown"]),
        new_items_shown=int(row["new_items_shown"]),
        distinct_items=int(row["distinct_items"]),
        catalogue_items=int(row["catalogue_items"]),
        milliseconds=None if times is None or times[0] is None else (float(times[0]), float(times[1])),
    )


_HAS_SCENARIO = text("SELECT EXISTS (SELECT FROM scenarios WHERE tenant_id = :tenant AND id = :scenario)")
_KIND_OF_SEGMENT = text("SELECT kind FROM segments WHERE tenant_id = :tenant AND id = :segment")
_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_COUNTED_UP_TO = text("SELECT next_xid::text FROM analytics_totals WHERE tenant_id = :tenant")

_EVENT = f"event.id, event.interaction_type, {EVENT_WEIGHT_SQL} AS weight"
_WINDOW = "CAST(:hours AS integer)"
_XID = "CAST(:next_xid AS xid8)"

# What the pipeline has attributed, as far as it is within the window. The newest answer that showed an item is within a
# shorter window, or no answer is.
_ATTRIBUTED = f"""
    SELECT answers.recommendation_id, {_EVENT}
    FROM answers
    JOIN attributions ON attributions.tenant_id = :tenant
        AND attributions.recommendation_id = answers.recommendation_id
    JOIN interactions AS event ON event.tenant_id = :tenant AND event.id = attributions.interaction_id
    WHERE event.recommendation_id = answers.recommendation_id
        OR event.occurred_at < answers.created_at + {_WINDOW} * interval '1 hour'
"""
_TAIL = f"""
    SELECT {FOLLOWED_ANSWER} AS recommendation_id, {_EVENT}
    FROM interactions AS event {followed_answer_joins(":tenant", _WINDOW, "event")}
    WHERE event.tenant_id = :tenant AND event.xid >= {_XID}
        AND (event.occurred_at >= :since OR event.recommendation_id IS NOT NULL)
"""
# In a longer window than the pipeline's, interactions follow that it has attributed to no answer.
_LATER = f"""
    SELECT {FOLLOWED_ANSWER} AS recommendation_id, {_EVENT}
    FROM interactions AS event {followed_answer_joins(":tenant", _WINDOW, "event")}
    WHERE event.tenant_id = :tenant AND event.xid < {_XID} AND event.occurred_at >= :since
        AND NOT EXISTS (
            SELECT FROM attributions
            WHERE attributions.tenant_id = :tenant AND attributions.interaction_id = event.id
        )
"""
_IN_SEGMENT = """
    EXISTS (
        SELECT FROM segment_users
        WHERE segment_users.tenant_id = :tenant AND segment_users.segment_id = :segment
            AND segment_users.user_id = impressions.user_id
    )
"""


def _statement(wanted: AnswerSelection) -> str:
    conditions = [
        "tenant_id = :tenant AND created_at >= :since",
        *(["scenario = :scenario"] if wanted.scenario is not None else []),
        *(["(holdout OR algorithm = :family)"] if wanted.family is not None else []),
        *(["(holdout OR release = :release)"] if wanted.release is not None else []),
        *([_IN_SEGMENT] if wanted.segment is not None else []),
    ]
    events = [_ATTRIBUTED, _TAIL, *([_LATER] if wanted.window_hours > ATTRIBUTION_HOURS else [])]
    return f"""
WITH answers AS MATERIALIZED (
    SELECT recommendation_id, user_id, item_ids, holdout, milliseconds, created_at
    FROM impressions WHERE {" AND ".join(conditions)}
), followed AS (
    SELECT recommendation_id, count(*) AS interactions,
        count(*) FILTER (WHERE interaction_type = 'purchase') AS purchases,
        coalesce(sum(weight) FILTER (WHERE interaction_type = 'purchase'), 0) AS value
    FROM ({" UNION ALL ".join(events)}) AS event GROUP BY recommendation_id
), seen AS (
    SELECT answers.recommendation_id, count(*) AS items FROM answers
    JOIN seen_impressions ON seen_impressions.tenant_id = :tenant
        AND seen_impressions.recommendation_id = answers.recommendation_id
    GROUP BY answers.recommendation_id
), of_users AS (
    SELECT holdout, count(*) AS shown, count(followed.recommendation_id) AS followed,
        count(seen.recommendation_id) AS seen, coalesce(sum(seen.items), 0) AS items_seen,
        coalesce(sum(interactions), 0) AS interactions, coalesce(sum(purchases), 0) AS purchases,
        coalesce(sum(value), 0) AS value
    FROM answers LEFT JOIN followed USING (recommendation_id) LEFT JOIN seen USING (recommendation_id)
    GROUP BY holdout, user_id
), of_groups AS (
    SELECT holdout, count(*) AS users, sum(shown) AS shown, sum(followed) AS followed,
        sum(shown * shown) AS shown_squared, sum(followed * followed) AS followed_squared,
        sum(shown * followed) AS product, sum(interactions) AS interactions, sum(purchases) AS purchases,
        sum(value) AS value, sum(seen) AS seen, sum(items_seen) AS items_seen
    FROM of_users GROUP BY holdout
), of_items AS (
    SELECT holdout, item_id, count(*) AS shown,
        count(*) FILTER (WHERE added_at > created_at - interval '{NEW_ITEM_DAYS} days') AS new,
        bool_or(is_there) AS is_there
    FROM (
        SELECT answers.holdout, answers.created_at, place.item_id, items.created_at AS added_at,
            items.id IS NOT NULL AND items.deleted_at IS NULL AS is_there
        FROM answers CROSS JOIN LATERAL unnest(item_ids) AS place (item_id)
        LEFT JOIN items ON items.tenant_id = :tenant AND items.id = place.item_id
    ) AS place
    GROUP BY holdout, item_id
), items_of_groups AS (
    SELECT holdout, sum(shown) AS items_shown, sum(new) AS new_items_shown,
        count(*) FILTER (WHERE is_there) AS distinct_items
    FROM of_items GROUP BY holdout
), times AS (
    SELECT holdout, percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY milliseconds) AS milliseconds
    FROM answers GROUP BY holdout
)
SELECT of_groups.*, coalesce(items_shown, 0) AS items_shown, coalesce(new_items_shown, 0) AS new_items_shown,
    coalesce(distinct_items, 0) AS distinct_items, milliseconds,
    (SELECT live_items FROM catalogues WHERE catalogues.tenant_id = :tenant) AS catalogue_items
FROM of_groups LEFT JOIN items_of_groups USING (holdout) LEFT JOIN times USING (holdout)
"""
