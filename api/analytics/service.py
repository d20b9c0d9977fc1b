"""Statistics of a tenant: totals, day by day, and what came of recommendations."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.errors import QueryCanceled
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from api.analytics.intervals import RateInterval, followed_rate, rate_difference
from api.analytics.recommendation_figures import (
    NO_ANSWERS,
    STATEMENT_SECONDS,
    AnswerFigures,
    AnswerFiguresRepository,
    AnswerSelection,
)
from api.analytics.repository import AnalyticsRepository
from api.analytics.schemas import (
    AnswerTimes,
    Day,
    EstimatedRate,
    GroupFigures,
    Period,
    RecommendationFigures,
    Stats,
)
from api.analytics.turns import CountingTurns
from api.database.scope import TenantScope
from api.http.problems import Invalid, NotFound, Unavailable

DAYS: dict[Period, int] = {"7d": 7, "30d": 30, "90d": 90}
ACCURACY_DIGITS = 4
RATE_DIGITS = 6


@dataclass(frozen=True, slots=True)
class AnswerFilter:
    """The answers that somebody asks figures of."""

    period: Period
    window_hours: int
    scenario: str | None = None
    family: str | None = None
    release: str | None = None
    segment: UUID | None = None


async def stats(session: AsyncSession, scope: TenantScope) -> Stats:
    """Statistics of the whole tenant now."""
    repository = AnalyticsRepository(session, scope)
    today = datetime.now(UTC).date()
    totals = await repository.totals()
    (day,) = await repository.days(today, today)
    champions = await repository.champions()
    measured = [champion.auc for champion in champions if champion.auc is not None]
    return Stats(
        total_users=totals.users,
        total_items=totals.items,
        total_recommendations=totals.shown + totals.generated,
        total_interactions=totals.interactions,
        active_models=len(champions),
        daily_active_users=day.active_users,
        avg_accuracy=_rounded(sum(measured) / len(measured)) if measured else None,
    )


async def series(session: AsyncSession, scope: TenantScope, period: Period) -> list[Day]:
    """The days of the period, oldest first, ending today. Days without traffic are zeros."""
    today = datetime.now(UTC).date()
    first = today - timedelta(days=DAYS[period] - 1)
    return [
        Day(
            date=found.day,
            total_recommendations=found.recommendations,
            active_users=found.active_users,
            accuracy=None if found.accuracy is None else _rounded(found.accuracy),
        )
        for found in await AnalyticsRepository(session, scope).days(first, today)
    ]


async def recommendation_figures(
    session: AsyncSession, scope: TenantScope, wanted: AnswerFilter, turns: CountingTurns
) -> RecommendationFigures:
    """What came of the period's answers.

    Raises NotFound for a scenario or a segment that the tenant has not, Invalid for a segment of items, and Unavailable
    where counting, or waiting for it, takes too long.
    """
    first = _today() - timedelta(days=DAYS[wanted.period] - 1)
    selection = AnswerSelection(
        first, wanted.window_hours, wanted.scenario, wanted.family, wanted.release, wanted.segment
    )
    repository = AnswerFiguresRepository(session, scope)
    try:
        async with turns.turn(scope):
            groups = await repository.figures(selection)
    except DBAPIError as error:
        if isinstance(error.orig, QueryCanceled):
            raise Unavailable(
                f"Counting takes longer than {STATEMENT_SECONDS:.0f} seconds: ask for a shorter period or window"
            ) from error
        raise
    if wanted.segment is not None:
        kind = await repository.kind_of_segment(wanted.segment)
        if kind is None:
            raise NotFound("There is no such segment")
        if kind != "users":
            raise Invalid.field("segment", "is one of items; figures are of users")
    if wanted.scenario is not None and not groups and not await repository.has_scenario(wanted.scenario):
        raise NotFound("There is no such scenario")
    treated, held_out = groups.get(False, NO_ANSWERS), groups.get(True, NO_ANSWERS)
    rate, other = followed_rate(treated.sums), followed_rate(held_out.sums)
    return RecommendationFigures(
        **_group(treated, rate),
        window_hours=wanted.window_hours,
        holdout=GroupFigures(**_group(held_out, other)),
        difference=None if rate is None or other is None else _estimated(rate_difference(rate, other)),
    )


def _group(found: AnswerFigures, rate: RateInterval | None) -> dict[str, Any]:
    shown = found.items_shown
    return {
        "users": found.sums.users,
        "shown": found.sums.shown,
        "items_shown": shown,
        "seen": found.seen,
        "items_seen": found.items_seen,
        "followed": found.sums.followed,
        "rate": None if rate is None else _estimated(rate),
        "interactions": found.interactions,
        "purchases": found.purchases,
        "value": round(found.value, RATE_DIGITS),
        "coverage": round(found.distinct_items / found.catalogue_items, RATE_DIGITS) if found.distinct_items else 0.0,
        "new_items": round(found.new_items_shown / shown, RATE_DIGITS) if shown else None,
        "latency_ms": None
        if found.milliseconds is None
        else AnswerTimes(p50=round(found.milliseconds[0], 3), p95=round(found.milliseconds[1], 3)),
    }


def _estimated(rate: RateInterval) -> EstimatedRate:
    return EstimatedRate(
        value=round(rate.value, RATE_DIGITS), low=round(rate.low, RATE_DIGITS), high=round(rate.high, RATE_DIGITS)
    )


def _today() -> datetime:
    """The beginning of this day in UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _rounded(accuracy: float) -> float:
    return round(accuracy, ACCURACY_DIGITS)
