"""Statistics of a tenant: totals, and day by day."""

from datetime import UTC, datetime, timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from api.analytics.repository import AnalyticsRepository
from api.analytics.schemas import Day, Period, Stats
from api.database.scope import TenantScope

DAYS: dict[Period, int] = {"7d": 7, "30d": 30, "90d": 90}
ACCURACY_DIGITS = 4


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


def _rounded(accuracy: float) -> float:
    return round(accuracy, ACCURACY_DIGITS)
