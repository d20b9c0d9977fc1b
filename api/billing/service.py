"""The requests of a tenant's users to billing. No database connection is held during a call to Stripe."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import stripe
from sqlmodel.ext.asyncio.session import AsyncSession

from api.billing.gateway import Gateway
from api.billing.money import from_cents, from_stripe, to_cents
from api.billing.problems import CustomerGone, StripeRefused
from api.billing.repository import BillingRepository, Change, user_of
from api.billing.schemas import AuditEntry, CapOut, CheckoutRequest, InvoiceOut, PlanOut, SubscriptionOut
from api.billing.subscriptions import LIVE, lookup_key
from api.billing.synchronise import fetch_subscriptions, store_subscription, stored_state
from api.billing.tables import BillingAudit
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.http.problems import Conflict, Invalid, NotFound
from api.http.schemas import PageParams
from api.metering.cycles import cycle_of
from api.metering.repository import history_of, months_of, standing_of
from configs.plans import plans

NO_SUBSCRIPTION = "none"
"""The status of a tenant without a subscription."""


def list_plans() -> list[PlanOut]:
    """The plans that are for sale."""
    return [PlanOut.model_validate(plan) for plan in plans().values() if plan.listed]


async def current(session: AsyncSession, scope: TenantScope, now: datetime | None = None) -> SubscriptionOut:
    """The subscription; where none is in force, the plan in force and its current cycle."""
    now = now or datetime.now(UTC)
    repository = BillingRepository(session, scope)
    known = await repository.subscription()
    state = stored_state(known) if known else None
    plan, anchor = (await history_of(session, scope, now)).in_force(now)
    if state is not None and anchor is not None:
        return SubscriptionOut(
            plan_id=plan.id,
            status=state.status,
            interval=state.interval,
            current_period_start=state.current_period_start,
            current_period_end=state.current_period_end,
            cancel_at_period_end=state.cancel_at_period_end,
        )
    cycle = cycle_of(None, now)
    return SubscriptionOut(
        plan_id=plan.id,
        status=state.status if state else NO_SUBSCRIPTION,
        interval="monthly",
        current_period_start=cycle.start,
        current_period_end=cycle.end,
        cancel_at_period_end=False,
    )


async def checkout(database: Database, gateway: Gateway, scope: TenantScope, wanted: CheckoutRequest) -> str:
    """The URL of a page on which to subscribe. Earlier pages are expired, so that nobody pays twice.

    Raises Invalid for a plan that is not for sale, Conflict where there is a live subscription, StripeUnavailable and
    StripeRefused.
    """
    if not (plan := plans().get(wanted.plan_id)) or not plan.listed:
        raise Invalid.field("planId", f"one of {', '.join(plan.id for plan in plans().values() if plan.listed)}")
    gateway.require(webhooks=True)
    async with transaction(database) as session:
        known = await BillingRepository(session, scope).subscription()
        customer_id = known.customer_id if known else None
        if known is not None and known.status in LIVE:
            raise _subscribed()
    gone = None
    async with gateway.answering():
        if customer_id is not None and not await gateway.has_customer(customer_id):
            gone, customer_id = customer_id, None
        if customer_id is None:
            customer_id = await gateway.create_customer(scope.tenant_id)
    async with transaction(database) as session:
        repository = BillingRepository(session, scope)
        if not await repository.lock():
            raise NotFound("There is no such tenant")
        known = await (repository.replace_customer(gone, customer_id) if gone else repository.customer(customer_id))
        customer_id = known.customer_id
    fetched = await fetch_subscriptions(database, gateway, customer_id)
    if (chosen := fetched.current) is not None and chosen.status in LIVE:
        async with transaction(database) as session:
            await store_subscription(session, scope, fetched)  # its event has not come yet
        raise _subscribed()
    async with gateway.answering():
        key = lookup_key(plan.id, wanted.interval)
        price, opened = await asyncio.gather(gateway.price(key), gateway.open_checkouts(customer_id))
        if price is None:
            raise StripeRefused(f"Stripe has no active price with the lookup key {key}")
        if not all(await asyncio.gather(*map(gateway.expire_checkout, opened))):
            raise Conflict("An earlier checkout of the tenant has just been paid or closed; look again in a moment")
        return await gateway.create_checkout(customer_id, price.id, scope.tenant_id)


async def portal(database: Database, gateway: Gateway, scope: TenantScope) -> str:
    """The URL of Stripe's page on which the tenant changes card, plan or subscription.

    Raises Conflict before the first checkout.
    """
    gateway.require()
    customer_id = await _customer(database, scope)
    if customer_id is None:
        raise Conflict("The tenant has never subscribed: begin with POST /api/billing/checkout")
    async with gateway.answering():
        return await gateway.create_portal(customer_id)


async def invoices(database: Database, gateway: Gateway, scope: TenantScope) -> list[InvoiceOut]:
    """The tenant's newest invoices, newest first."""
    gateway.require()
    customer_id = await _customer(database, scope)
    if customer_id is None:
        return []
    try:
        async with gateway.answering():
            return [_invoice(invoice) for invoice in await gateway.invoices(customer_id)]
    except CustomerGone:
        return []


async def set_cap(
    session: AsyncSession, scope: TenantScope, user_id: str, amount: Decimal, at: datetime | None = None
) -> CapOut:
    """Set how much overage may cost in a cycle, from the current cycle on.

    Raises Conflict where more has accrued in a cycle that is not over, since the tenant owes what it used; also where
    it was owed when the plan changed. at: the moment; now where left out.
    """
    cents = to_cents(amount)
    repository = BillingRepository(session, scope)
    if not await repository.lock():
        raise NotFound("There is no such tenant")
    now = at or datetime.now(UTC)  # after the wait for the lock, in the order of the changes
    accrued = await _accrued_cents(session, scope, now)
    if cents < accrued:
        raise Conflict(
            f"Overage of {accrued / 100:.2f} has accrued in this cycle: the cap cannot be lower until it ends"
        )
    before = await repository.cap_cents()
    await repository.put_cap(cents)
    if before != cents:
        await repository.note(Change("cap", None if before is None else _cap(before), _cap(cents)), user_id, at)
    standing = await standing_of(session, scope.tenant_id, now)
    refused_from = standing.terms.refused_from
    exceeded = refused_from is not None and standing.units >= refused_from
    return CapOut(overage_budget_cap=from_cents(cents), budget_exceeded=exceeded)


async def _accrued_cents(session: AsyncSession, scope: TenantScope, now: datetime) -> int:
    months = await months_of(session, scope, now)
    return max((max(month.terms.charged_cents(month.units), month.least_cap_cents) for month in months), default=0)


async def audit(session: AsyncSession, scope: TenantScope, page: PageParams) -> tuple[list[AuditEntry], int]:
    """A page of the audit, newest first, and the number of entries."""
    rows, total = await BillingRepository(session, scope).audit(page.offset, page.page_size)
    return [_entry(row) for row in rows], total


async def _customer(database: Database, scope: TenantScope) -> str | None:
    async with transaction(database) as session:
        known = await BillingRepository(session, scope).subscription()
    return known.customer_id if known else None


def _invoice(invoice: stripe.Invoice) -> InvoiceOut:
    return InvoiceOut(
        id=invoice.id,
        number=invoice.number,
        status=invoice.status,
        amount_due=from_stripe(invoice.amount_due, invoice.currency),
        amount_paid=from_stripe(invoice.amount_paid, invoice.currency),
        currency=invoice.currency,
        created_at=datetime.fromtimestamp(invoice.created, UTC),
        hosted_url=invoice.hosted_invoice_url,
    )


def _entry(row: BillingAudit) -> AuditEntry:
    user_id = user_of(row.actor)
    actor = row.actor if user_id is None else "user"
    return AuditEntry(
        id=str(row.id), at=row.at, actor=actor, user_id=user_id, action=row.action, before=row.before, after=row.after
    )


def _cap(cents: int) -> dict[str, float]:
    return {"overageBudgetCap": from_cents(cents)}


def _subscribed() -> Conflict:
    return Conflict("The tenant has a subscription: change it on the page that POST /api/billing/portal returns")
