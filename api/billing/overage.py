"""Charges the overage of ended billing cycles, each once.

A charge takes three steps. A row in our database fixes the amount, whatever happens to cap and plan later. Then an
invoice item is created at Stripe. Then the row is marked as reported. Before an invoice item is created, it is looked
up at Stripe by its metadata. So where a process dies between the last two steps, the next one does not charge twice.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import stripe
import structlog
from sqlalchemy import text

from api.billing.gateway import CURRENCY, Gateway, cycle_name
from api.billing.money import to_stripe
from api.billing.problems import StripeRefused
from api.billing.repository import BillingRepository
from api.billing.subscriptions import INTERVALS, LIVE, current_subscription
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.metering.repository import months_of

SETTLED = timedelta(seconds=60)
"""After this long past its end, no process adds units to a cycle any more."""
_LOCK = "hashtextextended('overage', 0)"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Charge:
    """The amount that a tenant owes for the overage of one cycle."""

    tenant_id: str
    customer_id: str
    cycle_start: datetime
    cycle_end: datetime
    units: int
    amount_cents: int

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the charge's invoice item, by which it is found again."""
        return {"tenant": self.tenant_id, "cycle": cycle_name(self.cycle_start)}

    @property
    def description(self) -> str:
        days = f"{self.cycle_start:%Y-%m-%d} to {self.cycle_end:%Y-%m-%d}"
        return f"{self.units:,} requests beyond the plan's limit, {days}"


async def report_overage(
    database: Database, gateway: Gateway, as_of: datetime | None = None, *, wait: bool = False
) -> int:
    """Charge the overage of cycles that ended before now or `as_of`. Returns how many charges were sent to Stripe.

    One process does this at a time. Another returns at once, or waits for it with `wait`. Raises StripeUnavailable
    where Stripe does not answer; the next call sends the charges that are left.
    """
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        taken = await connection.execute(
            text(f"SELECT {'pg_advisory_lock' if wait else 'pg_try_advisory_lock'}({_LOCK})")
        )
        if taken.scalar() is False:
            return 0
        try:
            ended_by = as_of or datetime.now(UTC) - SETTLED
            for tenant_id in (await connection.execute(_DUE, {"ended_by": ended_by})).scalars().all():
                await _settle(database, TenantScope(tenant_id), ended_by)
            reported = 0
            for row in (await connection.execute(_UNREPORTED)).all():
                charge = Charge(**row._mapping)
                try:
                    item_id = await _report(gateway, charge)
                except StripeRefused:  # the gateway has logged why; other tenants can still be charged
                    log.error("charge not reported yet", tenant=charge.tenant_id, cycle=charge.metadata["cycle"])
                    continue
                mark = {"tenant": charge.tenant_id, "start": charge.cycle_start, "item": item_id}
                await connection.execute(_MARK, mark)
                reported += 1
            return reported
        finally:
            await connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))


async def _settle(database: Database, scope: TenantScope, ended_by: datetime) -> None:
    """Decide what each month costs that has ended by then, if that is not decided yet.

    Under the lock of the tenant's billing, so that neither plan nor cap change meanwhile.
    """
    async with transaction(database) as session:
        if not await BillingRepository(session, scope).lock():
            return
        connection = await session.connection()
        for month in await months_of(session, scope, ended_by, ended_by=ended_by):
            terms = month.terms
            key = {"tenant": scope.tenant_id, "start": terms.cycle.start}
            if units := terms.overage_units(month.units):
                await connection.execute(_FIX, {**key, "units": units, "cents": terms.charged_cents(month.units)})
            await connection.execute(_SETTLED, key)


async def _report(gateway: Gateway, charge: Charge) -> str | None:
    """The id of the charge's invoice item, which is created where there is none.

    It is in the currency of the subscription. None where the amount is less than that currency can express.
    """
    async with gateway.answering():
        item = await gateway.find_item(charge.customer_id, charge.metadata)
        subscription = current_subscription(await gateway.subscriptions(charge.customer_id))
        live = subscription if subscription and subscription.status in LIVE else None
        renews = live is not None and _is_monthly(live)
        currency = subscription.currency if subscription else CURRENCY
        amount = to_stripe(charge.amount_cents, currency)
        if item is None:
            if not amount:
                return None
            item = await gateway.add_item(
                charge.customer_id,
                amount,
                currency,
                charge.description,
                charge.metadata,
                subscription_id=live.id if live else None,
                # The invoice of the cycle itself stays a draft for an hour; the next invoice comes a month later.
                draft_invoice_id=await gateway.draft_invoice(live.id) if live and renews else None,
            )
        if not renews and item.invoice is None:
            await gateway.invoice_waiting_items(
                charge.customer_id, subscription, charge.metadata, live=live is not None
            )
    return item.id


def _is_monthly(subscription: stripe.Subscription) -> bool:
    """Whether the next invoice comes within a month. That of an annual subscription would come too late."""
    recurring = subscription["items"].data[0].price.recurring
    return recurring is not None and INTERVALS.get(recurring.interval) == "monthly"


_DUE = text(
    """
    SELECT DISTINCT cycle.tenant_id
    FROM usage_cycles AS cycle JOIN tenants ON tenants.id = cycle.tenant_id AND tenants.deleted_at IS NULL
    WHERE cycle.cycle_end <= :ended_by AND cycle.settled_at IS NULL
    """
)

_FIX = text(
    """
    INSERT INTO overage_charges (tenant_id, cycle_start, units, amount_cents, reported_at)
    VALUES (:tenant, :start, :units, :cents, CASE WHEN :cents = 0 THEN now() END)
    ON CONFLICT (tenant_id, cycle_start) DO NOTHING
    """
)

_SETTLED = text("UPDATE usage_cycles SET settled_at = now() WHERE tenant_id = :tenant AND cycle_start = :start")

# A tenant without a customer at Stripe is left out until it has one.
_UNREPORTED = text(
    """
    SELECT charge.tenant_id, known.customer_id, charge.cycle_start, cycle.cycle_end, charge.units, charge.amount_cents
    FROM overage_charges AS charge
    JOIN usage_cycles AS cycle ON cycle.tenant_id = charge.tenant_id AND cycle.cycle_start = charge.cycle_start
    JOIN subscriptions AS known ON known.tenant_id = charge.tenant_id
    WHERE charge.reported_at IS NULL
    ORDER BY charge.cycle_start
    """
)

_MARK = text(
    """
    UPDATE overage_charges SET invoice_item_id = :item, reported_at = now()
    WHERE tenant_id = :tenant AND cycle_start = :start
    """
)
