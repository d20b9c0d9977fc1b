"""Which plans a tenant has held, since when, and what they come to in one month: pure functions, in exact numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from api.metering.cycles import Cycle
from configs.plans import Plan, plan

_BEGINNING = datetime.min.replace(tzinfo=UTC)
_TICK = timedelta(microseconds=1)


class PlanPeriod(NamedTuple):
    """A plan held from `start` until the next period starts. anchor: of its months; None for calendar months."""

    start: datetime
    plan_id: str
    anchor: datetime | None


class InForce(NamedTuple):
    """A plan, and the anchor of its months; None for calendar months."""

    plan: Plan
    anchor: datetime | None


class HeldPlan(NamedTuple):
    """A plan, and how long it was held in a month."""

    plan: Plan
    time: timedelta


@dataclass(frozen=True, slots=True)
class PlanHistory:
    """The plans of a tenant, oldest first. Before the first of `periods` it held the plan that it was created with.

    A period that starts later than the moment that is asked about does not count: a tenant whose payment is past due
    has one ahead, for the end of the grace period.
    """

    first_plan: str
    periods: Sequence[PlanPeriod]

    def in_force(self, now: datetime) -> InForce:
        """The plan in force. Raises LookupError for an unknown plan."""
        last = self._until(now)[-1]
        return InForce(plan(last.plan_id), last.anchor)

    def held(self, anchor: datetime | None, month: Cycle, now: datetime) -> list[HeldPlan]:
        """The plans held in a month, as of `now`; the plan in force is taken to stay until the month's end.

        Only the time under the month's own anchor counts: a month of a subscription that ends before is over then, and
        a calendar month goes on after it.
        """
        known = self._until(now)
        ends = [*(period.start for period in known[1:]), month.end]
        found = [
            HeldPlan(plan(period.plan_id), min(end, month.end) - max(period.start, month.start))
            for period, end in zip(known, ends, strict=True)
            if period.anchor == anchor
        ]
        # A month that began and ended in one moment has no plan: that of its start stands in.
        return [each for each in found if each.time > timedelta(0)] or [
            HeldPlan(self.in_force(month.start).plan, month.end - month.start)
        ]

    def _until(self, now: datetime) -> list[PlanPeriod]:
        created = PlanPeriod(_BEGINNING, self.first_plan, None)
        return [created, *(period for period in self.periods if period.start <= now)]


def mean_limit(held: Sequence[HeldPlan]) -> int | None:
    """The time-weighted mean of the request limits, rounded down. None, no limit, where one of the plans has none."""
    limits = [each.plan.request_limit for each in held]
    if None in limits:
        return None
    weighed = sum((limit or 0) * (each.time // _TICK) for limit, each in zip(limits, held, strict=True))
    return weighed // sum(each.time // _TICK for each in held)


def mean_unit_price(held: Sequence[HeldPlan]) -> Fraction | None:
    """The time-weighted mean price of a unit of overage in cents, exact, of the plans that sell any; None of none."""
    selling = [(each.plan.overage.unit_price, each.time // _TICK) for each in held if each.plan.overage is not None]
    if not selling:
        return None
    return sum((price * time for price, time in selling), Fraction(0)) / sum(time for _, time in selling)
