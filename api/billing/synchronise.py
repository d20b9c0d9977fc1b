"""Synchronises a tenant's stored subscription with Stripe.

No lock is held during a call to Stripe. Where two processes fetch at once, the later fetch wins. Every change at Stripe
sends an event, so some fetch comes after the last change.
"""

from dataclasses import dataclass
from datetime import datetime

import stripe
from sqlmodel.ext.asyncio.session import AsyncSession

from api.billing.gateway import Gateway
from api.billing.repository import BillingRepository, Change
from api.billing.subscriptions import ENDED, State, anchor_of, current_subscription, ended_at, state_of
from api.billing.tables import Subscription
from api.database.engine import Database
from api.database.scope import TenantScope
from api.metering.history import InForce
from api.metering.plan_changes import end_months, hold_plan
from api.metering.repository import history_of
from api.metering.terms import NOT_BEGUN, SubscriptionState, plan_in_force
from configs.plans import FREE, plan


@dataclass(frozen=True, slots=True)
class FetchedSubscriptions:
    """A customer's subscriptions at Stripe. as_of: the database's clock before the fetch, which all processes share."""

    customer_id: str
    subscriptions: list[stripe.Subscription]
    as_of: datetime

    @property
    def current(self) -> stripe.Subscription | None:
        """The subscription that counts."""
        return current_subscription(self.subscriptions)


async def fetch_subscriptions(database: Database, gateway: Gateway, customer_id: str) -> FetchedSubscriptions:
    """Fetch a customer's subscriptions. Raises StripeUnavailable, StripeRefused, MissingSetting."""
    async with database.pool.connection() as connection:
        ((as_of,),) = await (await connection.execute("SELECT clock_timestamp()")).fetchall()
    async with gateway.answering():
        return FetchedSubscriptions(customer_id, await gateway.subscriptions(customer_id), as_of)


async def store_subscription(
    session: AsyncSession, scope: TenantScope, fetched: FetchedSubscriptions, changed_at: datetime | None = None
) -> None:
    """Store what was fetched, with an audit entry for each change. Raises UnknownPriceError.

    A fetch that is older than the stored state changes nothing, nor does one for a deleted tenant.

    changed_at: when the event came to be that led to the fetch. A change of plan counts from then: not from later,
    though Stripe or this service may have been away, and not from before the state that was fetched last.
    """
    repository = BillingRepository(session, scope)
    if not await repository.lock():
        return
    known = await repository.customer(fetched.customer_id)
    outdated = known.as_of is not None and known.as_of >= fetched.as_of
    if known.customer_id != fetched.customer_id or outdated or (current := fetched.current) is None:
        return
    same = known.subscription_id == current.id
    anchor = (known.anchor if same else None) or anchor_of(current, fetched.as_of)
    state = state_of(current, anchor, known.plan_id if same else None)
    past_due_since = None
    if state.status == "past_due":
        past_due_since = known.past_due_since if same and known.status == "past_due" else fetched.as_of
    before = stored_state(known)
    await repository.note_ended_grace_period()
    await repository.put_state(state, past_due_since, fetched.as_of)
    if state != before:
        await repository.note(Change("subscription", before.audit_entry() if before else None, state.audit_entry()))
    told = SubscriptionState(state.plan_id, state.status, state.anchor, past_due_since)
    wanted = plan_in_force(await repository.plan(), told, fetched.as_of)
    if state.status in NOT_BEGUN and (await history_of(session, scope, fetched.as_of)).periods:
        wanted = InForce(plan(FREE), None)  # an earlier subscription has replaced the plan of the beginning
    since = _within(ended_at(current) or changed_at or fetched.as_of, known.as_of, fetched.as_of)
    held = await hold_plan(session, scope, wanted, since, fetched.as_of, told.grace_ends)
    if known.anchor is not None and (ended := _end_of(known.subscription_id, fetched)) is not None:
        await end_months(session, scope, known.anchor, _within(ended, known.as_of, fetched.as_of))
    if held.plan.id != wanted.plan.id:
        await repository.note(Change("plan", *({"planId": each.plan.id} for each in (held, wanted))))


def _end_of(subscription_id: str | None, fetched: FetchedSubscriptions) -> datetime | None:
    """When the subscription that was stored before ended; None where it lives."""
    found = next((each for each in fetched.subscriptions if each.id == subscription_id), None)
    if found is None:
        return fetched.as_of
    return (ended_at(found) or fetched.as_of) if found.status in ENDED else None


def _within(moment: datetime, earliest: datetime | None, latest: datetime) -> datetime:
    """The moment, moved into the bounds. Stripe's clock may be a test clock, far from the database's."""
    return min(latest, moment if earliest is None else max(earliest, moment))


def stored_state(known: Subscription) -> State | None:
    """The state that was stored last; None where there never was a subscription."""
    row = known
    if (
        row.subscription_id is None
        or row.plan_id is None
        or row.interval is None
        or row.status is None
        or row.current_period_start is None
        or row.current_period_end is None
        or row.billing_cycle_anchor is None
        or row.anchor is None
    ):
        return None
    return State(
        row.subscription_id,
        row.plan_id,
        "annual" if row.interval == "annual" else "monthly",
        row.status,
        row.current_period_start,
        row.current_period_end,
        row.billing_cycle_anchor,
        row.cancel_at_period_end,
        row.anchor,
    )
