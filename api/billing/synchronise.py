"""What we know of a tenant's subscription becomes what Stripe says of it.

No lock is held while Stripe is asked. Of two who ask at once, the answer to the later question counts: every change
at Stripe makes an event, so somebody asks after the last one.
"""

from dataclasses import dataclass
from datetime import datetime

import stripe
from sqlmodel.ext.asyncio.session import AsyncSession

from api.billing.gateway import Gateway
from api.billing.repository import BillingRepository, Change
from api.billing.subscriptions import State, newest, state_of
from api.billing.tables import Subscription
from api.database.engine import Database
from api.database.scope import TenantScope
from api.metering.repository import note_terms
from api.metering.terms import SubscriptionState, plan_in_force


@dataclass(frozen=True, slots=True)
class Answer:
    """What Stripe says of a customer. as_of: the database's clock when it was asked, which all processes share."""

    customer_id: str
    subscriptions: list[stripe.Subscription]
    as_of: datetime

    @property
    def chosen(self) -> stripe.Subscription | None:
        """The one that counts."""
        return newest(self.subscriptions)


async def ask(database: Database, gateway: Gateway, customer_id: str) -> Answer:
    """Raises StripeAway, StripeRefused, MissingSetting."""
    async with database.pool.connection() as connection:
        ((as_of,),) = await (await connection.execute("SELECT clock_timestamp()")).fetchall()
    async with gateway.answering():
        return Answer(customer_id, await gateway.subscriptions(customer_id), as_of)


async def follow(session: AsyncSession, scope: TenantScope, answer: Answer) -> None:
    """Write what was answered, with an entry in the audit where it is news. Raises UnknownPriceError.

    An answer that is older than what is known changes nothing, nor does one for a tenant that is gone.
    """
    repository = BillingRepository(session, scope)
    if not await repository.lock():
        return
    known = await repository.customer(answer.customer_id)
    outdated = known.as_of is not None and known.as_of >= answer.as_of
    if known.customer_id != answer.customer_id or outdated or (chosen := answer.chosen) is None:
        return
    same = known.subscription_id == chosen.id
    state = state_of(chosen, known.plan_id if same else None)
    past_due_since = None
    if state.status == "past_due":
        past_due_since = known.past_due_since if same and known.status == "past_due" else answer.as_of
    before = known_state(known)
    await repository.note_lapse()
    terms = terms_of(known), SubscriptionState(state.plan_id, state.status, state.billing_cycle_anchor, past_due_since)
    await note_terms(session, scope, answer.as_of)
    await repository.put_state(state, past_due_since, answer.as_of)
    await note_terms(session, scope, answer.as_of)
    if state != before:
        await repository.note(Change("subscription", before.shown() if before else None, state.shown()))
    tenant_plan = await repository.plan()
    plans = [plan_in_force(tenant_plan, each, answer.as_of).plan.id for each in terms]
    if plans[0] != plans[1]:
        await repository.note(Change("plan", *({"planId": each} for each in plans)))


def known_state(known: Subscription) -> State | None:
    """The subscription as it was when Stripe was asked last; None where there never was one."""
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


def terms_of(known: Subscription) -> SubscriptionState:
    """What of it decides about service."""
    return SubscriptionState(known.plan_id, known.status, known.billing_cycle_anchor, known.past_due_since)
