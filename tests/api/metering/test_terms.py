"""Plans in force, what overage costs and when it stops: pure rules, in cents."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.metering.cycles import Cycle
from api.metering.history import PlanHistory, PlanPeriod
from api.metering.terms import Entitlement, SubscriptionState, effective_cap, entitlement, plan_in_force
from configs.plans import Overage, plan, plans

NOW = datetime(2025, 3, 10, tzinfo=UTC)
ANCHOR = datetime(2025, 1, 31, tzinfo=UTC)
CYCLE = Cycle(datetime(2025, 2, 28, tzinfo=UTC), datetime(2025, 3, 31, tzinfo=UTC))
CALENDAR = Cycle(datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC))


def growth(status: str | None, **more: Any) -> SubscriptionState:
    return SubscriptionState("plan-growth", status, ANCHOR, **more)


def past_due(since: timedelta) -> SubscriptionState:
    return growth("past_due", past_due_since=NOW - since)


@pytest.mark.parametrize(
    ("own", "subscription", "plan_id", "anchor"),
    [
        ("free", None, "free", None),
        ("unlimited", None, "unlimited", None),
        ("plan-starter", None, "plan-starter", None),
        ("free", growth("active"), "plan-growth", ANCHOR),
        ("free", growth("trialing"), "plan-growth", ANCHOR),
        ("unlimited", growth("active"), "plan-growth", ANCHOR),
        # before the first payment nothing has changed; there may be but a customer
        ("free", growth("incomplete"), "free", None),
        ("unlimited", growth("incomplete_expired"), "unlimited", None),
        ("unlimited", SubscriptionState(None, None), "unlimited", None),
        # a week's patience
        ("free", past_due(timedelta(0)), "plan-growth", ANCHOR),
        ("free", past_due(timedelta(days=7) - timedelta(microseconds=1)), "plan-growth", ANCHOR),
        ("free", past_due(timedelta(days=7)), "free", None),
        ("free", growth("past_due"), "plan-growth", ANCHOR),
        # the end, whatever plan the tenant was made with
        ("free", growth("unpaid"), "free", None),
        ("free", growth("canceled"), "free", None),
        ("unlimited", growth("canceled"), "free", None),
        ("free", growth("paused"), "free", None),
    ],
)
def test_the_plan_in_force(own: str, subscription: Any, plan_id: str, anchor: datetime | None) -> None:
    found = plan_in_force(own, subscription, NOW)
    assert (found.plan.id, found.anchor) == (plan_id, anchor)


def test_a_plan_that_is_none_is_an_error_not_another_plan() -> None:
    with pytest.raises(LookupError, match="gold"):
        plan_in_force("gold", None, NOW)


def test_terms_follow_from_the_plan_its_cycle_and_the_tenants_cap() -> None:
    subscribed = PlanHistory("free", [PlanPeriod(ANCHOR, "plan-growth", ANCHOR)])
    assert entitlement("acme", subscribed, NOW, None) == Entitlement(
        "acme", plan("plan-growth"), CYCLE, 100_000, Fraction(20, 100), 50_000, ANCHOR
    )
    assert entitlement("acme", subscribed, NOW, 25_050).cap_cents == 25_050
    assert entitlement("acme", PlanHistory("free", []), NOW, 25_000) == Entitlement(
        "acme", plan("free"), CALENDAR, 1_000, None, 0
    )


def terms(limit: int | None, price: Fraction | None, cap: int) -> Entitlement:
    """The terms of a month of Starter with another limit, price and cap."""
    return Entitlement("acme", plan("plan-starter"), CYCLE, limit, price, cap)


@pytest.mark.parametrize(
    ("price", "size", "units", "cents"),
    [
        (60, 100, 0, 0),
        (60, 100, 1, 0),  # 0.6 cents
        (60, 100, 2, 1),  # 1.2
        (60, 100, 5, 3),
        (60, 100, 99, 59),  # 59.4
        (60, 100, 100, 60),
        (20, 100, 10_004, 2_000),  # 2000.8
        (1, 3, 2, 0),
        (1, 3, 3, 1),
        (700, 1, 3, 2_100),
    ],
)
def test_overage_is_in_proportion_and_rounded_down_to_a_cent(price: int, size: int, units: int, cents: int) -> None:
    assert terms(0, Fraction(price, size), 10**9).charged_cents(units) == cents


@given(price=st.integers(1, 10_000), size=st.integers(1, 10_000), units=st.integers(0, 10**12))
def test_the_sum_is_exact_at_any_size(price: int, size: int, units: int) -> None:
    exact = Decimal(units) * price / size
    assert terms(0, Fraction(price, size), 10**18).charged_cents(units) == int(exact.quantize(Decimal(1), ROUND_FLOOR))


def test_a_plan_without_overage_charges_none() -> None:
    assert terms(1_000, None, 10**6).charged_cents(10**6) == 0


@pytest.mark.parametrize(
    ("units", "limit", "past"), [(0, 1_000, 0), (1_000, 1_000, 0), (1_001, 1_000, 1), (10**9, None, 0)]
)
def test_units_past_the_limit(units: int, limit: int | None, past: int) -> None:
    assert terms(limit, Fraction(1), 0).overage_units(units) == past


@pytest.mark.parametrize(
    ("plan_id", "own", "cents"),
    [
        ("plan-starter", None, 5_000),
        ("plan-growth", None, 50_000),
        ("plan-growth", 0, 0),
        ("plan-growth", 12_345, 12_345),
        ("free", None, 0),
        ("free", 10_000, 0),  # nothing is sold that a cap could bound
        ("unlimited", None, 0),
    ],
)
def test_the_cap_is_the_tenants_own_or_its_plans(plan_id: str, own: int | None, cents: int) -> None:
    assert effective_cap(plan(plan_id), own) == cents


def test_the_cap_is_never_below_what_was_owed_when_the_plan_changed() -> None:
    assert effective_cap(plan("plan-starter"), None, 40_000) == 40_000
    assert effective_cap(plan("plan-growth"), None, 40_000) == 50_000
    assert effective_cap(plan("free"), None, 1_200) == 1_200


STARTER, GROWTH = Fraction(60, 100), Fraction(20, 100)


@pytest.mark.parametrize(
    ("price", "limit", "cap", "refused_from"),
    [
        (None, 1_000, 0, 1_000),
        (None, None, 0, None),
        (GROWTH, None, 0, None),  # some other plan of this cycle had no limit
        (STARTER, 10_000, 0, 10_000),
        (STARTER, 10_000, 60, 10_100),
        (STARTER, 10_000, 1, 10_002),  # the second unit makes 1.2 cents
        (STARTER, 10_000, 100, 10_167),  # 167 units cost 100.2 cents, 166 cost 99.6
        (GROWTH, 100_000, 50_000, 350_000),
    ],
)
def test_the_unit_from_which_on_requests_are_refused(price: Any, limit: Any, cap: int, refused_from: Any) -> None:
    assert terms(limit, price, cap).refused_from == refused_from


@given(price=st.integers(1, 1_000), size=st.integers(1, 1_000), cap=st.integers(1, 10**6), limit=st.integers(1, 10**6))
def test_the_last_unit_before_is_under_the_cap_and_the_first_refused_one_at_it(
    price: int, size: int, cap: int, limit: int
) -> None:
    refused_from = terms(limit, Fraction(price, size), cap).refused_from
    assert refused_from is not None
    uncapped = terms(limit, Fraction(price, size), 10**18)
    assert uncapped.charged_cents(refused_from - 1) < cap <= uncapped.charged_cents(refused_from)


@given(units=st.integers(0, 10**9), limit=st.none() | st.integers(1, 10**6), cap=st.integers(0, 10**6))
def test_a_charge_never_exceeds_the_cap_whatever_the_counters_overshot(units: int, limit: Any, cap: int) -> None:
    assert 0 <= terms(limit, GROWTH, cap).charged_cents(units) <= cap


def test_the_plans_of_the_file_are_the_references() -> None:
    listed = {
        each.id: (each.monthly_price, each.annual_price, each.request_limit, each.item_limit, each.user_limit)
        for each in plans().values()
        if each.listed
    }
    assert listed == {
        "plan-starter": (49, 470, 10_000, 1_000, 500),
        "plan-growth": (149, 1_430, 100_000, 10_000, 5_000),
    }
    free, unlimited = plan("free"), plan("unlimited")
    assert (free.request_limit, free.item_limit, free.user_limit, free.overage) == (1_000, 100, 100, None)
    assert (unlimited.request_limit, unlimited.item_limit, unlimited.user_limit, unlimited.overage) == (None,) * 4


@pytest.mark.parametrize("wrong", [{"unitSize": 0}, {"unitPriceCents": 0}, {"cap": -1}, {"unitPriceCents": 0.5}])
def test_overage_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Overage.model_validate({"unitPriceCents": 1, "unitSize": 1, "cap": 0, **wrong})
