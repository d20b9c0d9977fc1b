"""What a tenant may use, and what it pays for overage: pure functions, in integer cents."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from api.metering.cycles import Cycle, cycle_of
from configs.plans import FREE, Plan, plan

GRACE_PERIOD = timedelta(days=7)
"""How long a tenant keeps its plan while a payment is past due."""
SERVING = ("active", "trialing")
NOT_BEGUN = (None, "incomplete", "incomplete_expired")
"""The statuses before the first payment. Such a subscription has no effect yet."""


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """The part of a subscription that decides the plan in force. `status` is Stripe's."""

    plan_id: str | None
    status: str | None
    billing_cycle_anchor: datetime | None = None
    past_due_since: datetime | None = None


class InForce(NamedTuple):
    """A plan, and the anchor of its cycles; None for calendar months."""

    plan: Plan
    anchor: datetime | None


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The terms of a tenant's current cycle."""

    tenant_id: str
    plan: Plan
    cycle: Cycle
    request_limit: int | None  # the highest that was in force in the cycle; None: no limit
    cap_cents: int

    @property
    def refused_from(self) -> int | None:
        """The number of units at which the cost of overage reaches the cap; None where that never happens."""
        if self.request_limit is None:
            return None
        if self.plan.overage is None:
            return self.request_limit
        # The first whole unit whose cost, rounded down, equals the cap.
        return self.request_limit + -(
            -self.cap_cents * self.plan.overage.unit_size // self.plan.overage.unit_price_cents
        )


def plan_in_force(tenant_plan: str, subscription: SubscriptionState | None, now: datetime) -> InForce:
    """The plan in force. A subscription takes precedence over the plan that the tenant was created with.

    A past due subscription keeps its plan for `GRACE_PERIOD`. One that has ended or is unpaid puts the tenant on the
    plan `free`. Raises LookupError for an unknown plan.
    """
    if subscription is None or subscription.status in NOT_BEGUN or subscription.plan_id is None:
        return InForce(plan(tenant_plan), None)
    if subscription.status in SERVING or (
        subscription.status == "past_due" and not _grace_period_over(subscription, now)
    ):
        return InForce(plan(subscription.plan_id), subscription.billing_cycle_anchor)
    return InForce(plan(FREE), None)


def entitlement(tenant_id: str, in_force: InForce, now: datetime, cap_cents: int | None) -> Entitlement:
    """The terms of the current cycle by the plan alone. cap_cents: the cap that the tenant has set, if any."""
    chosen = in_force.plan
    return Entitlement(
        tenant_id, chosen, cycle_of(in_force.anchor, now), chosen.request_limit, effective_cap(chosen, cap_cents)
    )


def effective_cap(chosen: Plan, cap_cents: int | None) -> int:
    """The cap in cents: the tenant's own, or its plan's; 0 where the plan sells no overage."""
    if chosen.overage is None:
        return 0
    return chosen.overage.cap * 100 if cap_cents is None else cap_cents


def higher_limit(one: int | None, other: int | None) -> int | None:
    """The higher of two limits; None, which means no limit, is the highest."""
    return None if one is None or other is None else max(one, other)


def overage_units(units: int, request_limit: int | None) -> int:
    """The number of units beyond the limit."""
    return 0 if request_limit is None else max(0, units - request_limit)


def overage_cents(chosen: Plan, units: int) -> int:
    """What so many units beyond the limit cost on this plan, in proportion to its unit size.

    The sum is rounded down once, so a fraction of a cent is not charged.
    """
    if chosen.overage is None:
        return 0
    return units * chosen.overage.unit_price_cents // chosen.overage.unit_size


def charged_cents(chosen: Plan, units: int, request_limit: int | None, cap_cents: int) -> int:
    """What the overage of a cycle costs on its invoice, at most the cap.

    chosen: the plan in force at the cycle's end. cap_cents: the effective one.
    """
    return min(cap_cents, overage_cents(chosen, overage_units(units, request_limit)))


def _grace_period_over(subscription: SubscriptionState, now: datetime) -> bool:
    return subscription.past_due_since is not None and now >= subscription.past_due_since + GRACE_PERIOD
