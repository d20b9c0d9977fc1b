"""The overage of cycles that have ended, charged once each: first a row of ours, then Stripe, then a mark.

The row fixes the amount, whatever becomes of cap and plan later. Before an invoice item is made it is looked for at
Stripe, by its metadata: whoever died between making it and marking it, or comes back days later, finds it there.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import stripe
import structlog
from sqlalchemy import text

from api.billing.gateway import CURRENCY, Gateway, cycle_name
from api.billing.problems import StripeRefused
from api.billing.subscriptions import INTERVALS, LIVE, newest
from api.database.engine import Database
from api.metering.terms import charged_cents, effective_cap
from configs.plans import plan

SETTLED_SECONDS = 60
"""How long after its end nothing is counted into a cycle any more."""
_LOCK = "hashtextextended('overage', 0)"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Charge:
    """What a tenant owes for a cycle."""

    tenant_id: str
    customer_id: str
    cycle_start: datetime
    cycle_end: datetime
    units: int
    amount_cents: int

    @property
    def metadata(self) -> dict[str, str]:
        """By which Stripe's invoice item is known again."""
        return {"tenant": self.tenant_id, "cycle": cycle_name(self.cycle_start)}

    @property
    def description(self) -> str:
        days = f"{self.cycle_start:%Y-%m-%d} to {self.cycle_end:%Y-%m-%d}"
        return f"{self.units:,} requests beyond the plan's limit, {days}"


async def report_overage(
    database: Database, gateway: Gateway, as_of: datetime | None = None, *, wait: bool = False
) -> int:
    """Charge what is to be charged of cycles that ended before now, or `as_of`. How many charges Stripe was told of.

    One process at a time does it; another has nothing to do meanwhile, or waits. Raises StripeAway where Stripe does
    not answer: the rest is for the next time.
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
                    item_id = await _tell(gateway, charge)
                except StripeRefused:  # the gateway's log says why; other tenants can be charged all the same
                    log.error("a charge waits", tenant=charge.tenant_id, cycle=charge.metadata["cycle"])
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


async def _tell(gateway: Gateway, charge: Charge) -> str:
    """The id of the charge's one invoice item, which was there or is made."""
    async with gateway.answering():
        item = await gateway.find_item(charge.customer_id, charge.metadata)
        subscription = newest(await gateway.subscriptions(charge.customer_id))
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
                # The invoice of the cycle itself stays open for an hour; the next one is a month away.
                draft_invoice_id=await gateway.draft_invoice(live.id) if live and renews else None,
            )
        if not renews and item.invoice is None:
            await gateway.invoice_waiting_items(
                charge.customer_id, subscription, charge.metadata, live=live is not None
            )
    return item.id


def _is_monthly(subscription: stripe.Subscription) -> bool:
    """Whether an invoice that takes the item along comes by itself soon: an annual subscription's does not."""
    recurring = subscription["items"].data[0].price.recurring
    return recurring is not None and INTERVALS.get(recurring.interval) == "monthly"


# The cap is that of the cycle's end: what was changed since counts for the cycles since.
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

# A tenant that nobody can send an invoice to is passed over until somebody can.
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
