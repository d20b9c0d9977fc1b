"""Reads Stripe's subscriptions: which one counts, its plan, and its state."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import structlog

from api.http.schemas import rfc3339
from configs.plans import plans

if TYPE_CHECKING:
    import stripe  # takes a tenth of a second, which a command about users need not spend

Interval = Literal["monthly", "annual"]
INTERVALS: dict[str, Interval] = {"month": "monthly", "year": "annual"}
"""Our intervals by Stripe's."""
LIVE = ("active", "trialing", "past_due", "paused")
"""The statuses of a subscription beside which there must be no second one."""
ENDED = ("canceled", "incomplete_expired")

log = structlog.get_logger(__name__)


class UnknownPriceError(Exception):
    """A customer is subscribed to a price that belongs to no plan."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of a subscription at Stripe at one moment."""

    subscription_id: str
    plan_id: str
    interval: Interval
    status: str
    current_period_start: datetime
    current_period_end: datetime
    billing_cycle_anchor: datetime
    cancel_at_period_end: bool
    anchor: datetime
    """That of the months that usage is counted in. It never moves while the subscription lives."""

    def audit_entry(self) -> dict[str, Any]:
        """The state in the form of an audit entry."""
        return {
            "subscriptionId": self.subscription_id,
            "planId": self.plan_id,
            "interval": self.interval,
            "status": self.status,
            "currentPeriodStart": rfc3339(self.current_period_start),
            "currentPeriodEnd": rfc3339(self.current_period_end),
            "cancelAtPeriodEnd": self.cancel_at_period_end,
        }


def lookup_key(plan_id: str, interval: Interval) -> str:
    """The lookup key of a plan's price at Stripe."""
    return f"{plan_id}-{interval}"


def current_subscription(subscriptions: "list[stripe.Subscription]") -> "stripe.Subscription | None":
    """The subscription that counts: live ones go before unpaid ones, unpaid ones before ended ones, then newer ones."""
    ranked = sorted(subscriptions, key=lambda found: (_rank(found.status), -found.created))
    if len(ranked) > 1 and ranked[1].status in LIVE:
        log.error("customer has two live subscriptions", counted=ranked[0].id, other=ranked[1].id)
    return ranked[0] if ranked else None


def state_of(subscription: "stripe.Subscription", anchor: datetime, known_plan: str | None = None) -> State:
    """The state of a subscription.

    anchor: that of its months, see `anchor_of`. known_plan: the plan stored for this subscription, used where its price
    names none. Raises UnknownPriceError.
    """
    item = subscription["items"].data[0]
    price = item.price
    if price.recurring is None or price.recurring.interval not in INTERVALS:
        raise UnknownPriceError(f"the price {price.id} recurs neither monthly nor annually")
    plan_id = plan_of(price) or known_plan
    if plan_id is None:
        raise UnknownPriceError(f"the price {price.id} names no plan: neither by its lookup key nor by metadata.planId")
    period_end = _moment(item.current_period_end)
    ends_at = subscription.cancel_at
    return State(
        subscription_id=subscription.id,
        plan_id=plan_id,
        interval=INTERVALS[price.recurring.interval],
        status=subscription.status,
        current_period_start=_moment(item.current_period_start),
        current_period_end=period_end,
        billing_cycle_anchor=_moment(subscription.billing_cycle_anchor),
        # Stripe's portal sets either field, depending on the age of the subscription.
        cancel_at_period_end=subscription.cancel_at_period_end
        or (subscription.status not in ENDED and ends_at is not None and _moment(ends_at) <= period_end),
        anchor=anchor,
    )


def anchor_of(subscription: "stripe.Subscription", as_of: datetime) -> datetime:
    """The moment that the months of a new subscription are counted from: its beginning, which is not after `as_of`.

    Stripe's `billing_cycle_anchor` moves with the interval, which the customer may switch at any time. An anchor on the
    boundary of a calendar month is moved by a microsecond, so that no month of a subscription is a calendar month too.
    """
    start = min(_moment(subscription.start_date), as_of)
    boundary = start == start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start + timedelta(microseconds=1) if boundary else start


def ended_at(subscription: "stripe.Subscription") -> datetime | None:
    """When the subscription ended; None where it has not."""
    if subscription.status not in ENDED or subscription.ended_at is None:
        return None
    return _moment(subscription.ended_at)


def plan_of(price: "stripe.Price") -> str | None:
    """The plan of a price. A newer price may take over the lookup key; `metadata.planId` stays with the old price."""
    named = (price.lookup_key or "").rpartition("-")[0]
    noted = price.metadata.to_dict().get("planId") if price.metadata else None
    return next((plan_id for plan_id in (named, noted) if plan_id in plans()), None)


def _rank(status: str) -> int:
    return 0 if status in LIVE else 2 if status in ENDED else 1


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
