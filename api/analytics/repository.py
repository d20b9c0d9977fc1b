"""A tenant's figures: what the pipeline has counted up to a transaction, plus the rows written since."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Row, TextClause, text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.tenants.problems import TenantGone


@dataclass(frozen=True, slots=True)
class Totals:
    """The totals of a tenant at one moment."""

    users: int
    items: int
    shown: int
    generated: int
    interactions: int


@dataclass(frozen=True, slots=True)
class DayCounts:
    """The figures of one day in UTC."""

    day: date
    recommendations: int
    active_users: int
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Champion:
    """A champion in the newest release."""

    family: str
    version: str
    auc: float | None
    release: str
    published_at: datetime


class AnalyticsRepository:
    """The figures of one tenant, all of one snapshot of the database. Create it before the session's first query."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id
        self._counted: tuple[str, Totals] | None = None

    async def totals(self) -> Totals:
        """Raises TenantGone."""
        next_xid, counted = await self._rolled_up()
        live = (await self._rows(_TAIL, next_xid=next_xid))[0]
        return Totals(
            users=counted.users + live.users,
            items=counted.items,
            shown=counted.shown + live.shown,
            generated=counted.generated,
            interactions=counted.interactions + live.interactions,
        )

    async def days(self, first: date, last: date) -> list[DayCounts]:
        """Every day from the first to the last. Raises TenantGone."""
        next_xid, _ = await self._rolled_up()
        rows = await self._rows(_DAYS, next_xid=next_xid, first=first, last=last)
        return [DayCounts(**row._mapping) for row in rows]

    async def champions(self) -> list[Champion]:
        """The models of the newest release; none before the first."""
        return [Champion(**row._mapping) for row in await self._rows(_CHAMPIONS)]

    async def _rolled_up(self) -> tuple[str, Totals]:
        """The transaction up to which the pipeline has counted, and its totals."""
        if self._counted is None:
            # The pipeline may move the bound between two queries. In one snapshot they all see the same.
            await (await self._session.connection()).execute(_ONE_SNAPSHOT)
            rows = await self._rows(_ROLLED_UP)
            if not rows:
                raise TenantGone
            row = rows[0]
            totals = Totals(row.users, row.items, row.shown, row.generated, row.interactions)
            self._counted = row.next_xid, totals
        return self._counted

    async def _rows(self, statement: TextClause, **parameters: Any) -> list[Row[Any]]:
        connection = await self._session.connection()
        return list((await connection.execute(statement, {"tenant": self._tenant_id, **parameters})).all())


_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

_ROLLED_UP = text(
    """
    SELECT coalesce(totals.next_xid, '0')::text AS next_xid, coalesce(totals.users, 0) AS users,
        catalogue.live_items AS items, coalesce(totals.shown, 0) + coalesce(expired.shown, 0) AS shown,
        coalesce(totals.interactions, 0) + coalesce(expired.interactions, 0) AS interactions,
        coalesce(expired.generated, 0) + (
            SELECT coalesce(sum(recommendations_written), 0)::bigint FROM generation_jobs
            WHERE generation_jobs.tenant_id = :tenant
        ) AS generated
    FROM catalogues AS catalogue LEFT JOIN analytics_totals AS totals ON totals.tenant_id = catalogue.tenant_id
    LEFT JOIN expired_counts AS expired ON expired.tenant_id = catalogue.tenant_id
    WHERE catalogue.tenant_id = :tenant
    """
)

# The bound is passed as a value. For a subquery the planner would assume that a third of the table matches.
_TAIL = text(
    """
    SELECT
        (SELECT count(*) FROM users WHERE tenant_id = :tenant AND xid >= CAST(:next_xid AS xid8)) AS users,
        (
            SELECT coalesce(sum(cardinality(item_ids)), 0)::bigint FROM impressions
            WHERE tenant_id = :tenant AND xid >= CAST(:next_xid AS xid8)
        ) AS shown,
        (SELECT count(*) FROM interactions WHERE tenant_id = :tenant AND xid >= CAST(:next_xid AS xid8)) AS interactions
    """
)

# `LIMIT 1` makes the planner look up each active user of the tail by key, however many were active before.
# `MATERIALIZED` makes it compute each part once, although its statistics do not cover the newest rows yet.
_DAYS = text(
    """
    WITH acting AS (
        SELECT DISTINCT (occurred_at AT TIME ZONE 'UTC')::date AS day, user_id FROM interactions
        WHERE tenant_id = :tenant AND xid >= CAST(:next_xid AS xid8)
            AND occurred_at >= CAST(:first AS date)::timestamp AT TIME ZONE 'UTC'
    ), come AS MATERIALIZED (
        SELECT acting.day, count(*) AS users
        FROM acting LEFT JOIN LATERAL (
            SELECT true AS counted FROM analytics_active_users AS active
            WHERE active.tenant_id = :tenant AND active.day = acting.day AND active.user_id = acting.user_id LIMIT 1
        ) AS known ON true
        WHERE known.counted IS NULL GROUP BY acting.day
    ), shown AS MATERIALIZED (
        SELECT (created_at AT TIME ZONE 'UTC')::date AS day, sum(cardinality(item_ids)) AS items FROM impressions
        WHERE tenant_id = :tenant AND xid >= CAST(:next_xid AS xid8) GROUP BY 1
    ), generated AS MATERIALIZED (
        SELECT (coalesce(started_at, created_at) AT TIME ZONE 'UTC')::date AS day, sum(recommendations_written) AS items
        FROM generation_jobs WHERE tenant_id = :tenant GROUP BY 1
    ), measured AS MATERIALIZED (
        SELECT day, sum(auc * users) / sum(users) AS accuracy FROM daily_accuracy
        WHERE tenant_id = :tenant AND users > 0 GROUP BY day
    )
    SELECT calendar.day::date AS day,
        (coalesce(counted.shown, 0) + coalesce(shown.items, 0) + coalesce(generated.items, 0))::bigint
            AS recommendations,
        coalesce(counted.active_users, 0) + coalesce(come.users, 0) AS active_users,
        measured.accuracy
    FROM generate_series(CAST(:first AS date), CAST(:last AS date), interval '1 day') AS calendar (day)
    LEFT JOIN analytics_days AS counted ON counted.tenant_id = :tenant AND counted.day = calendar.day::date
    LEFT JOIN come ON come.day = calendar.day::date
    LEFT JOIN shown ON shown.day = calendar.day::date
    LEFT JOIN generated ON generated.day = calendar.day::date
    LEFT JOIN measured ON measured.day = calendar.day::date
    ORDER BY calendar.day
    """
)

_CHAMPIONS = text(
    """
    SELECT family, version, auc, release, published_at FROM release_models
    WHERE tenant_id = :tenant AND release = (SELECT max(release) FROM release_models WHERE tenant_id = :tenant)
    ORDER BY family
    """
)
