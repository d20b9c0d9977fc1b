"""Charges the overage of ended billing cycles, each once.

A charge takes three steps. A row in our database fixes the amount, whatever happens to cap and plan later. Then an
invoice item is created at Stripe. Then the row is marked as reported. Before an invoice item is created, it is looked
up at Stripe by its metadata. So where a process dies between the last two steps, the next one does not charge twice.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import stripe
import structlog
from sqlalchemy import text

from api.billing.gateway import CURRENCY, Gateway, cycle_name
from api.billing.problems import StripeRefused
from api.billing.subscriptions import INTERVALS, LIVE, current_subscription
from api.database.engine import Database
from api.metering.terms import charged_cents, effective_cap
from configs.plans import plan

SETTLED_SECONDS = 60
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
            for cycle in (await connection.execute(_DUE, {"as_of": as_of, "settled": SETTLED_SECONDS})).all():
                await connection.execute(_FIX, _fixed(cycle))
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


def _fixed(cycle: Any) -> dict[str, Any]:
    chosen = plan(cycle.plan_id)
    cap_cents = effective_cap(chosen, cycle.cap_cents)
    return {
        "tenant": cycle.tenant_id,
        "start": cycle.cycle_start,
        "units": cycle.units - cycle.request_limit,
        "cents": charged_cents(chosen, cycle.units, cycle.request_limit, cap_cents),
    }


async def _report(gateway: Gateway, charge: Charge) -> str:
    """The id of the charge's invoice item, which is created where there is none."""
    async with gateway.answering():
        item = await gateway.find_item(charge.customer_id, charge.metadata)
        subscription = current_subscription(await gateway.subscriptions(charge.customer_id))
        live = subscription if subscription and subscription.status in LIVE else None
        renews = live is not None and _is_monthly(live)
        if item is None:
            item = await gateway.add_item(
                charge.customer_id,
                charge.amount_cents,
                subscription.currency if subscription else CURRENCY,
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


# The cap is the one at the cycle's end. Later changes count for later cycles.
_DUE = text(
    """
    SELECT cycle.tenant_id, cycle.cycle_start, cycle.units, cycle.request_limit, cycle.plan_id,
        CASE WHEN changed.since THEN changed.cap_cents ELSE own.overage_cap_cents END AS cap_cents
    FROM usage_cycles AS cycle
    JOIN tenants ON tenants.id = cycle.tenant_id AND tenants.deleted_at IS NULL
    LEFT JOIN billing_settings AS own ON own.tenant_id = cycle.tenant_id
    LEFT JOIN LATERAL (
        SELECT true AS since, ((before ->> 'overageBudgetCap')::numeric * 100)::bigint AS cap_cents
        FROM billing_audit
        WHERE billing_audit.tenant_id = cycle.tenant_id AND action = 'cap' AND at >= cycle.cycle_end
        ORDER BY at LIMIT 1
    ) AS changed ON true
    LEFT JOIN overage_charges AS charge
        ON charge.tenant_id = cycle.tenant_id AND charge.cycle_start = cycle.cycle_start
    WHERE cycle.cycle_end <= coalesce(CAST(:as_of AS timestamptz), now() - make_interval(secs => :settled))
        AND cycle.units > cycle.request_limit AND charge.tenant_id IS NULL
    ORDER BY cycle.cycle_end
    """
)

_FIX = text(
    """
    INSERT INTO overage_charges (tenant_id, cycle_start, units, amount_cents, reported_at)
    SELECT id, :start, :units, :cents, CASE WHEN :cents = 0 THEN now() END FROM tenants
    WHERE id = :tenant AND deleted_at IS NULL FOR SHARE
    ON CONFLICT (tenant_id, cycle_start) DO NOTHING
    """
)

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
