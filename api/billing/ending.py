"""Ends the subscription of a tenant that is deleted, and says what remains of the tenant at Stripe."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.billing.gateway import Gateway
from api.billing.problems import CustomerGone, MissingSetting
from api.billing.repository import BillingRepository
from api.billing.subscriptions import ENDED
from api.database.scope import TenantScope
from api.http.problems import Problem
from api.metering.repository import months_of
from configs.billing import BillingSettings

SETTLED = ("paid", "void")
"""The statuses of invoices that nobody has to do anything about."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What our own rows say, before they are erased."""

    customer_id: str
    subscription_id: str | None
    unreported_cents: int


async def end_subscription(session: AsyncSession, tenant_id: str) -> list[str]:
    """End everything at Stripe that could still cost the tenant, and return sentences on what remains there.

    Stripe is asked, not only our copy: a checkout may have been paid a moment ago. Where Stripe fails, the sentences
    say what is left to do by hand. Call it before the tenant's rows are erased, since only they name the customer.
    """
    known = await _known(session, TenantScope(tenant_id))
    if known is None:
        return []
    gateway = Gateway(BillingSettings())
    try:
        return await _end(gateway, known)
    except CustomerGone:
        return [f"The customer {known.customer_id} was deleted at Stripe before; nothing of the tenant remains there."]
    except (Problem, MissingSetting) as problem:
        subscription = f" and its subscription {known.subscription_id}" if known.subscription_id else ""
        return [
            f"Nothing was ended at Stripe: {problem.detail}. Delete the customer {known.customer_id}{subscription} in "
            "Stripe's dashboard, which also cancels what it is subscribed to.",
            *_unreported(known),
        ]
    finally:
        await gateway.close()


async def _end(gateway: Gateway, known: _Known) -> list[str]:
    async with gateway.answering():
        for checkout in await gateway.open_checkouts(known.customer_id):
            await gateway.expire_checkout(checkout)
    async with gateway.answering():
        # After the checkouts, of which one may just have been paid.
        living = [each.id for each in await gateway.subscriptions(known.customer_id) if each.status not in ENDED]
        for subscription_id in living:
            await gateway.cancel(subscription_id)
    async with gateway.answering():
        invoices = await gateway.invoices(known.customer_id)
    unpaid = [each.id for each in invoices if each.status not in SETTLED]
    ended = [f"The subscription {each} has ended at Stripe." for each in living]
    kept = f"There remain the customer {known.customer_id} with its cards and {len(invoices)} invoices"
    open_ones = f", of which {', '.join(unpaid)} are not paid" if unpaid else ""
    advice = "delete the customer in Stripe's dashboard where they are not to be kept"
    return [*ended, f"{kept}{open_ones}: {advice}.", *_unreported(known)]


def _unreported(known: _Known) -> list[str]:
    if not known.unreported_cents:
        return []
    return [f"Overage of {known.unreported_cents / 100:.2f} was not charged yet, and is not charged any more."]


async def _known(session: AsyncSession, scope: TenantScope) -> _Known | None:
    known = await BillingRepository(session, scope).subscription()
    if known is None:
        return None
    charges = await (await session.connection()).execute(_UNREPORTED, {"tenant": scope.tenant_id})
    now = datetime.now(UTC)
    months = [*await months_of(session, scope, now), *await months_of(session, scope, now, ended_by=now)]
    owed = int(charges.scalar_one()) + sum(month.terms.charged_cents(month.units) for month in months)
    return _Known(known.customer_id, known.subscription_id, owed)


_UNREPORTED = text(
    """
    SELECT coalesce(sum(amount_cents), 0)::bigint FROM overage_charges
    WHERE tenant_id = :tenant AND reported_at IS NULL
    """
)
