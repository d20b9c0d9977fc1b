"""A month's limit and price: the time-weighted means of the plans held in it, exact at any moment."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from api.metering.cycles import Cycle, cycle_of
from api.metering.history import PlanHistory, PlanPeriod, mean_limit, mean_unit_price
from api.metering.terms import Entitlement, entitlement

ANCHOR = datetime(2026, 4, 10, 12, tzinfo=UTC)
MONTH = cycle_of(ANCHOR, ANCHOR)  # 30 days
DAY = timedelta(days=1)
LATER = 29 * DAY


def history(*changes: tuple[timedelta, str]) -> PlanHistory:
    """A subscription since ANCHOR, with these plans since so long after it; "free" is after its end."""
    return PlanHistory(
        "free", [PlanPeriod(ANCHOR + after, id_, None if id_ == "free" else ANCHOR) for after, id_ in changes]
    )


def terms(of: PlanHistory, after: timedelta = LATER) -> Entitlement:
    return entitlement("acme", of, ANCHOR + after, None)


STARTER, GROWTH = (timedelta(0), "plan-starter"), (timedelta(0), "plan-growth")


@pytest.mark.parametrize(
    ("changes", "limit", "price"),
    [
        ([STARTER], 10_000, Fraction(60, 100)),
        # a third of the month each way
        ([STARTER, (20 * DAY, "plan-growth")], 40_000, Fraction(2 * 60 + 20, 300)),
        ([GROWTH, (10 * DAY, "plan-starter")], 40_000, Fraction(20 + 2 * 60, 300)),
        # up for a second and down: 90,000 more for 1 of 2,592,000 s
        ([STARTER, (DAY, "plan-growth"), (DAY + timedelta(seconds=1), "plan-starter")], 10_000, None),
        ([STARTER, (DAY, "plan-growth"), (2 * DAY, "plan-starter")], 13_000, Fraction(29 * 60 + 20, 3_000)),
        # a plan that is held ahead of the moment does not count yet
        ([STARTER, (29 * DAY + timedelta(seconds=1), "plan-growth")], 10_000, Fraction(60, 100)),
    ],
)
def test_limit_and_price_are_weighed_by_time(
    changes: list[tuple[timedelta, str]], limit: int, price: Fraction | None
) -> None:
    found = terms(history(*changes))
    assert found.request_limit == limit
    assert price is None or found.unit_price == price


def test_a_change_counts_from_its_moment_as_if_it_stayed() -> None:
    """Up on the 11th day: before, nothing of it is known; from then on, two thirds of the month are Growth's."""
    changed = history(STARTER, (10 * DAY, "plan-growth"))
    assert terms(changed, 10 * DAY - timedelta(microseconds=1)).request_limit == 10_000
    assert [terms(changed, after).request_limit for after in (10 * DAY, 11 * DAY, 29 * DAY)] == [70_000] * 3


def test_the_next_month_knows_nothing_of_the_last_ones_plans() -> None:
    changed = history(STARTER, (10 * DAY, "plan-growth"), (20 * DAY, "plan-starter"))
    assert terms(changed).request_limit == 40_000
    assert terms(changed, 30 * DAY).request_limit == 10_000


def test_the_month_of_a_subscription_that_ended_is_what_was_held_until_its_end() -> None:
    """Ten days of Starter and ten of Growth, and then no more: the calendar month goes on with the plan `free`."""
    ended = history(STARTER, (10 * DAY, "plan-growth"), (20 * DAY, "free"))
    assert terms(ended).request_limit == 1_000
    assert terms(ended).cycle == Cycle(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
    held = ended.held(ANCHOR, MONTH, ANCHOR + LATER)
    assert (mean_limit(held), mean_unit_price(held)) == (55_000, Fraction(40, 100))


def test_the_days_without_service_do_not_weigh() -> None:
    """Past due beyond the grace period, and paid ten days later: the month is Starter's before and after."""
    lapsed = history(STARTER, (5 * DAY, "free"), (15 * DAY, "plan-starter"))
    assert terms(lapsed, 10 * DAY).request_limit == 1_000
    assert (terms(lapsed).request_limit, terms(lapsed).cycle) == (10_000, MONTH)


def test_a_plan_without_a_limit_leaves_the_month_without_one() -> None:
    assert terms(history(STARTER, (10 * DAY, "unlimited"))).request_limit is None


def test_days_of_a_short_month_weigh_by_its_length() -> None:
    """From 31 January the month is 31 January to 28 February: 14 of its 28 days are Growth's."""
    anchor = datetime(2026, 1, 31, tzinfo=UTC)
    changed = PlanHistory(
        "free",
        [PlanPeriod(anchor, "plan-starter", anchor), PlanPeriod(anchor + 14 * DAY, "plan-growth", anchor)],
    )
    found = entitlement("acme", changed, anchor + 27 * DAY, None)
    assert (found.cycle.end, found.request_limit) == (datetime(2026, 2, 28, tzinfo=UTC), 55_000)
    assert entitlement("acme", changed, anchor + 28 * DAY, None).cycle.end == datetime(2026, 3, 31, tzinfo=UTC)


def test_the_limit_is_rounded_down_and_the_price_is_not() -> None:
    third = history(STARTER, (timedelta(seconds=864_001), "plan-growth"))
    share = Fraction(864_001, 2_592_000)
    found = terms(third)
    assert found.request_limit == int(10_000 * share + 100_000 * (1 - share))
    assert found.unit_price == (60 * share + 20 * (1 - share)) / 100
