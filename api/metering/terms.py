"""What a tenant may use in a month, and what overage costs: pure functions, in exact numbers and integer cents."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil, floor

from api.metering.cycles import Cycle, cycle_of
from api.metering.history import InForce, PlanHistory, mean_limit, mean_unit_price
from configs.plans import FREE, Plan, plan

GRACE_PERIOD = timedelta(days=7)
"""How long a tenant keeps its plan while a payment is past due."""
SERVING = ("active", "trialing")
NOT_BEGUN = (None, "incomplete", "incomplete_expired")
"""The statuses before the first payment. Such a subscription has no effect yet."""


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """The part of a subscription that decides the plan in force. `status` is Stripe's, `anchor` that of its months."""

    plan_id: str | None
    status: str | None
    anchor: datetime | None = None
    past_due_since: datetime | None = None

    @property
    def grace_ends(self) -> datetime | None:
        """When the tenant loses its plan unless it pays; None where no payment is past due."""
        if self.status != "past_due" or self.past_due_since is None:
            return None
        return self.past_due_since + GRACE_PERIOD


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The terms of one of a tenant's months."""

    tenant_id: str
    plan: Plan  # in force now; of an earlier month, in force last
    cycle: Cycle
    request_limit: int | None  # the mean of the plans held in the month; None: no limit
    unit_price: Fraction | None  # of overage, in cents, the mean of the plans held; None where none is sold
    cap_cents: int
    anchor: datetime | None = None

    @property
    def refused_from(self) -> int | None:
        """The number of units at which the cost of overage reaches the cap; None where that never happens."""
        if self.request_limit is None:
            return None
        if self.unit_price is None:
            return self.request_limit
        # The first whole unit whose cost, rounded down, equals the cap.
        return self.request_limit + ceil(self.cap_cents / self.unit_price)

    def overage_units(self, units: int) -> int:
        """How many of the month's units are beyond the limit."""
        return 0 if self.request_limit is None else max(0, units - self.request_limit)

    def cost_cents(self, units: int) -> int:
        """What the overage costs without a cap. It is rounded down once: a fraction of a cent is not charged."""
        return 0 if self.unit_price is None else floor(self.overage_units(units) * self.unit_price)

    def charged_cents(self, units: int) -> int:
        """What the overage costs, at most the cap."""
        return min(self.cap_cents, self.cost_cents(units))


def plan_in_force(tenant_plan: str, subscription: SubscriptionState | None, now: datetime) -> InForce:
    """The plan in force. A subscription takes precedence over the plan that the tenant was created with.

    A past due subscription keeps its plan for `GRACE_PERIOD`. One that has ended or is unpaid puts the tenant on the
    plan `free`. Raises LookupError for an unknown plan.
    """
    if subscription is None or subscription.status in NOT_BEGUN or subscription.plan_id is None:
        return InForce(plan(tenant_plan), None)
    grace_ends = subscription.grace_ends
    if subscription.status in SERVING or (
        subscription.status == "past_due" and (grace_ends is None or now < grace_ends)
    ):
        return InForce(plan(subscription.plan_id), subscription.anchor)
    return InForce(plan(FREE), None)


def entitlement(
    tenant_id: str, history: PlanHistory, now: datetime, cap_cents: int | None, least_cap_cents: int = 0
) -> Entitlement:
    """The terms of the current month. cap_cents and least_cap_cents: see `effective_cap`."""
    anchor = history.in_force(now).anchor
    return month_terms(tenant_id, history, anchor, cycle_of(anchor, now), now, cap_cents, least_cap_cents)


def month_terms(
    tenant_id: str,
    history: PlanHistory,
    anchor: datetime | None,
    month: Cycle,
    now: datetime,
    cap_cents: int | None,
    least_cap_cents: int,
) -> Entitlement:
    """The terms of the month of this anchor, as of `now`."""
    held = history.held(anchor, month, now)
    last = held[-1].plan
    cap = effective_cap(last, cap_cents, least_cap_cents)
    return Entitlement(tenant_id, last, month, mean_limit(held), mean_unit_price(held), cap, anchor)


def effective_cap(chosen: Plan, cap_cents: int | None, least_cap_cents: int = 0) -> int:
    """The cap in cents: the tenant's own, or its plan's; 0 where the plan sells no overage.

    least_cap_cents: what the units used before a change of plan come to, up to the cap that they were used under. No
    cap of the month is lower, or the lower cap of another plan would remit it.
    """
    if chosen.overage is None:
        return least_cap_cents
    return max(least_cap_cents, chosen.overage.cap * 100 if cap_cents is None else cap_cents)
