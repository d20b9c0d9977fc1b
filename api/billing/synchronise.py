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
from api.billing.subscriptions import State, current_subscription, state_of
from api.billing.tables import Subscription
from api.database.engine import Database
from api.database.scope import TenantScope
from api.metering.repository import note_terms
from api.metering.terms import SubscriptionState, plan_in_force


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


async def store_subscription(session: AsyncSession, scope: TenantScope, fetched: FetchedSubscriptions) -> None:
    """Store what was fetched, with an audit entry for each change. Raises UnknownPriceError.

    A fetch that is older than the stored state changes nothing, nor does one for a deleted tenant.
    """
    repository = BillingRepository(session, scope)
    if not await repository.lock():
        return
    known = await repository.customer(fetched.customer_id)
    outdated = known.as_of is not None and known.as_of >= fetched.as_of
    if known.customer_id != fetched.customer_id or outdated or (current := fetched.current) is None:
        return
    same = known.subscription_id == current.id
    state = state_of(current, known.plan_id if same else None)
    past_due_since = None
    if state.status == "past_due":
        past_due_since = known.past_due_since if same and known.status == "past_due" else fetched.as_of
    before = stored_state(known)
    await repository.note_ended_grace_period()
    states = (
        subscription_state(known),
        SubscriptionState(state.plan_id, state.status, state.billing_cycle_anchor, past_due_since),
    )
    await note_terms(session, scope, fetched.as_of)
    await repository.put_state(state, past_due_since, fetched.as_of)
    await note_terms(session, scope, fetched.as_of)
    if state != before:
        await repository.note(Change("subscription", before.audit_entry() if before else None, state.audit_entry()))
    tenant_plan = await repository.plan()
    plans = [plan_in_force(tenant_plan, each, fetched.as_of).plan.id for each in states]
    if plans[0] != plans[1]:
        await repository.note(Change("plan", *({"planId": each} for each in plans)))


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
    )


def subscription_state(known: Subscription) -> SubscriptionState:
    """The part of the stored subscription that decides the plan in force."""
    return SubscriptionState(known.plan_id, known.status, known.billing_cycle_anchor, known.past_due_since)
