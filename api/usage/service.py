"""What a tenant has used: metered requests, items and users, against the limits of its plan."""

from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from api.analytics.repository import AnalyticsRepository
from api.database.engine import OneConnection
from api.database.scope import TenantScope
from api.metering.repository import Standing, standing_of
from api.usage.schemas import UsageOut
from api.users.quota import count_uncounted_users


async def usage_of(session: AsyncSession, scope: TenantScope, now: datetime) -> UsageOut:
    """The usage of the current cycle. All figures come from one transaction. Raises TenantGone."""
    totals = await AnalyticsRepository(session, scope).totals()
    async with OneConnection(session).connection() as connection:
        uncounted = await count_uncounted_users(connection, scope)
    standing = await standing_of(session, scope.tenant_id, now)
    return usage_out(standing, totals.items, totals.users - uncounted)


def usage_out(standing: Standing, items: int, users: int) -> UsageOut:
    """The answer for a tenant that has this many items and end users."""
    terms, units = standing.terms, standing.units
    cents = terms.charged_cents(units)
    refused_from = terms.refused_from
    return UsageOut(
        requests_used=units,
        request_limit=terms.request_limit,
        percent_used=round(100 * units / terms.request_limit, 2) if terms.request_limit else 0.0,
        overage_units=terms.overage_units(units),
        overage_amount=cents / 100,
        overage_budget_cap=terms.cap_cents // 100 if terms.cap_cents % 100 == 0 else terms.cap_cents / 100,
        budget_exceeded=refused_from is not None and units >= refused_from,
        items_used=items,
        items_limit=terms.plan.item_limit,
        users_used=users,
        users_limit=terms.plan.user_limit,
        last_request_at=standing.last_request_at,
    )
