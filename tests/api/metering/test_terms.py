"""Plans in force, what overage costs and when it stops: pure rules, in cents."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.metering.cycles import Cycle
from api.metering.terms import (
    Entitlement,
    SubscriptionState,
    charged_cents,
    effective_cap,
    entitlement,
    higher_limit,
    overage_cents,
    overage_units,
    plan_in_force,
)
from configs.plans import Overage, Plan, plan, plans

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
    assert entitlement("acme", plan_in_force("free", growth("active"), NOW), NOW, None) == Entitlement(
        "acme", plan("plan-growth"), CYCLE, 100_000, 50_000
    )
    assert entitlement("acme", plan_in_force("free", growth("active"), NOW), NOW, 25_050).cap_cents == 25_050
    assert entitlement("acme", plan_in_force("free", None, NOW), NOW, 25_000) == Entitlement(
        "acme", plan("free"), CALENDAR, 1_000, 0
    )


def sold(unit_price_cents: int, unit_size: int, cap: int = 0) -> Plan:
    """The plan starter with other prices of overage."""
    overage = Overage(unitPriceCents=unit_price_cents, unitSize=unit_size, cap=cap)
    return plan("plan-starter").model_copy(update={"overage": overage})


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
    assert overage_cents(sold(price, size), units) == cents


@given(price=st.integers(1, 10_000), size=st.integers(1, 10_000), units=st.integers(0, 10**12))
def test_the_sum_is_exact_at_any_size(price: int, size: int, units: int) -> None:
    exact = Decimal(units) * price / size
    assert overage_cents(sold(price, size), units) == int(exact.quantize(Decimal(1), ROUND_FLOOR))


def test_a_plan_without_overage_charges_none() -> None:
    assert overage_cents(plan("free"), 10**6) == 0
    assert charged_cents(plan("free"), 10**6, 1_000, 10**6) == 0


@pytest.mark.parametrize(
    ("units", "limit", "past"), [(0, 1_000, 0), (1_000, 1_000, 0), (1_001, 1_000, 1), (10**9, None, 0)]
)
def test_units_past_the_limit(units: int, limit: int | None, past: int) -> None:
    assert overage_units(units, limit) == past


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


@pytest.mark.parametrize(
    ("plan_id", "limit", "cap", "refused_from"),
    [
        ("free", 1_000, 0, 1_000),
        ("unlimited", None, 0, None),
        ("plan-growth", None, 0, None),  # some other plan of this cycle had no limit
        ("plan-starter", 10_000, 0, 10_000),
        ("plan-starter", 10_000, 60, 10_100),
        ("plan-starter", 10_000, 1, 10_002),  # the second unit makes 1.2 cents
        ("plan-starter", 10_000, 100, 10_167),  # 167 units cost 100.2 cents, 166 cost 99.6
        ("plan-growth", 100_000, 50_000, 350_000),
    ],
)
def test_the_unit_from_which_on_requests_are_refused(plan_id: str, limit: Any, cap: int, refused_from: Any) -> None:
    assert Entitlement("acme", plan(plan_id), CYCLE, limit, cap).refused_from == refused_from


@given(price=st.integers(1, 1_000), size=st.integers(1, 1_000), cap=st.integers(1, 10**6), limit=st.integers(1, 10**6))
def test_the_last_unit_before_is_under_the_cap_and_the_first_refused_one_at_it(
    price: int, size: int, cap: int, limit: int
) -> None:
    chosen = sold(price, size)
    refused_from = Entitlement("acme", chosen, CYCLE, limit, cap).refused_from
    assert refused_from is not None
    assert overage_cents(chosen, refused_from - 1 - limit) < cap <= overage_cents(chosen, refused_from - limit)


@given(units=st.integers(0, 10**9), limit=st.none() | st.integers(1, 10**6), cap=st.integers(0, 10**6))
def test_a_charge_never_exceeds_the_cap_whatever_the_counters_overshot(units: int, limit: Any, cap: int) -> None:
    assert 0 <= charged_cents(plan("plan-growth"), units, limit, cap) <= cap


# A change of plan in mid-cycle splits nothing. (limits in force in the cycle, plan at its end, units) -> charge.
@pytest.mark.parametrize(
    ("limits", "last", "units", "cents"),
    [
        ([10_000, 100_000], "plan-growth", 60_000, 0),  # up: the higher limit counts from the cycle's start
        ([10_000, 100_000], "plan-growth", 100_100, 20),
        ([100_000, 10_000], "plan-starter", 60_000, 0),  # down: it still does
        ([100_000, 10_000], "plan-starter", 100_100, 60),  # at the price in force at the end
        ([10_000, 100_000, 10_000], "plan-starter", 100_001, 0),
        ([10_000, None], "plan-starter", 10**6, 0),
    ],
)
def test_the_higher_limit_of_a_cycle_counts_at_the_price_of_its_end(
    limits: list[int | None], last: str, units: int, cents: int
) -> None:
    highest = limits[0]
    for limit in limits[1:]:
        highest = higher_limit(highest, limit)
    assert charged_cents(plan(last), units, highest, 10**9) == cents


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
