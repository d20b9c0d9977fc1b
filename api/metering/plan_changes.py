"""Records which plan a tenant holds since when. Call these in the transaction that stores the tenant's subscription.

What is recorded depends on the state of the subscription and on the moment alone, so that it does not matter how often
or in which order Stripe's events come.
"""

from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Connection, OneConnection
from api.database.scope import TenantScope
from api.metering.history import InForce
from api.metering.repository import Standing, history_of, months_of
from configs.plans import FREE


async def hold_plan(
    session: AsyncSession, scope: TenantScope, wanted: InForce, since: datetime, now: datetime, until: datetime | None
) -> InForce:
    """Record that the tenant holds this plan since a moment, unless it does. Returns what was in force before.

    since: not later than `now`, and not earlier than the last record. until: when a grace period ends that runs now;
    the tenant holds the plan `free` from then on, if nothing else is recorded before.
    """
    history = await history_of(session, scope, now)
    before = history.in_force(now)
    changes = before != wanted
    months = await months_of(session, scope, now) if changes else []
    async with OneConnection(session).connection() as connection:
        await connection.execute(_FORGET_AFTER, [scope.tenant_id, since if changes else now])
        if changes and history.in_force(since) != wanted:
            await connection.execute(_HOLD, [scope.tenant_id, since, wanted.plan.id, wanted.anchor])
        if until is not None and until > now:
            await connection.execute(_HOLD, [scope.tenant_id, until, FREE, None])
        if months:
            await _keep_what_is_owed(connection, scope, months, await months_of(session, scope, now))
    return before


async def end_months(session: AsyncSession, scope: TenantScope, anchor: datetime, at: datetime) -> None:
    """End the month of a subscription that has ended, so that its overage is charged soon."""
    async with OneConnection(session).connection() as connection:
        await connection.execute(_END_MONTHS, {"tenant": scope.tenant_id, "anchor": anchor, "at": at})


async def _keep_what_is_owed(
    connection: Connection, scope: TenantScope, before: list[Standing], after: list[Standing]
) -> None:
    """Keep the caps of these months from falling below what is owed for the units used until now: see `effective_cap`.

    That is what was owed before the change, or what the units come to by the means that follow from the change, up to
    the cap before. Otherwise a customer could use the limit of a large plan, and then pay no more than the cap of a
    small one.
    """
    by_start = {month.terms.cycle.start: month for month in after}
    for month in before:
        now = by_start.get(month.terms.cycle.start, month)
        owed = max(month.terms.charged_cents(month.units), min(month.terms.cap_cents, now.terms.cost_cents(now.units)))
        await connection.execute(_KEEP_OWED, [owed, scope.tenant_id, month.terms.cycle.start])


_FORGET_AFTER = "DELETE FROM plan_periods WHERE tenant_id = %s AND started_at > %s"

_HOLD = """
INSERT INTO plan_periods (tenant_id, started_at, plan_id, anchor) VALUES (%s, %s, %s, %s)
ON CONFLICT (tenant_id, started_at) DO UPDATE SET plan_id = excluded.plan_id, anchor = excluded.anchor
"""

_KEEP_OWED = """
UPDATE usage_cycles SET least_cap_cents = greatest(least_cap_cents, %s) WHERE tenant_id = %s AND cycle_start = %s
"""

_END_MONTHS = """
UPDATE usage_cycles SET cycle_end = greatest(%(at)s, cycle_start + interval '1 microsecond')
WHERE tenant_id = %(tenant)s AND anchor = %(anchor)s AND cycle_end > %(at)s AND settled_at IS NULL
"""
