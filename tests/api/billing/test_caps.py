"""The overage cap, and the audit of changes."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.billing.money import from_cents, to_cents
from api.billing.schemas import CapRequest
from api.metering.cycles import cycle_of
from tests.fixtures.desk import Desk, Shop


@given(st.integers(0, 100_000_000))
def test_every_amount_of_cents_survives_the_way_out_and_in(cents: int) -> None:
    """A JSON number that we showed means the same number of cents when it comes back."""
    shown = from_cents(cents)
    assert to_cents(CapRequest.model_validate({"capAmount": shown}).cap_amount) == cents


@pytest.mark.parametrize(
    ("amount", "cents"), [(250.0, 25_000), (250, 25_000), (0, 0), (0.1, 10), (19.99, 1_999), (1_000_000, 100_000_000)]
)
def test_an_amount_is_kept_to_the_cent(amount: float, cents: int, desk: Desk, shop: Shop) -> None:
    answer = shop.ask("PUT", "/overage-cap", {"capAmount": amount})
    assert answer.status_code == 200, answer.text
    assert answer.json()["overageBudgetCap"] == amount
    rows = desk.sql("SELECT overage_cap_cents FROM billing_settings WHERE tenant_id = %s", [shop.tenant_id])
    assert rows == [(cents,)]


@pytest.mark.parametrize("amount", [-0.01, 0.001, 250.005, 1_000_000.01, 1e300, "250", None, True, [1], {}], ids=repr)
def test_what_is_no_amount_is_refused(amount: Any, desk: Desk, shop: Shop) -> None:
    answer = shop.ask("PUT", "/overage-cap", {"capAmount": amount})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "capAmount"
    assert desk.sql("SELECT FROM billing_settings WHERE tenant_id = %s", [shop.tenant_id]) == []


def test_a_cap_that_is_used_up_says_so(desk: Desk) -> None:
    """plan-starter, 100 units past the limit: 60 cents."""
    shop = desk.shop("plan-starter")
    cycle = cycle_of(None, datetime.now(UTC))
    desk.sql(
        "INSERT INTO usage_cycles (tenant_id, cycle_start, cycle_end, units) VALUES (%s, %s, %s, 10100)",
        [shop.tenant_id, cycle.start, cycle.end],
    )
    for cap, exceeded in ((0.6, True), (0.61, False), (50, False)):
        answer = shop.ask("PUT", "/overage-cap", {"capAmount": cap}).json()
        assert answer == {"overageBudgetCap": cap, "budgetExceeded": exceeded}, cap
        assert shop.get("/usage")["budgetExceeded"] is exceeded
    refused = shop.ask("PUT", "/overage-cap", {"capAmount": 0.59})  # what was used is paid
    assert refused.status_code == 409
    assert "0.60" in refused.json()["detail"]
    assert shop.get("/usage")["overageBudgetCap"] == 50


def test_changes_say_who_when_before_and_after(desk: Desk, shop: Shop) -> None:
    shop.ask("PUT", "/overage-cap", {"capAmount": 100})
    shop.ask("PUT", "/overage-cap", {"capAmount": 100})  # no change
    shop.ask("PUT", "/overage-cap", {"capAmount": 250.5})
    shop.subscribe()
    first, second = shop.audit("cap")
    assert (first["before"], first["after"]) == (None, {"overageBudgetCap": 100.0})
    assert (second["before"], second["after"]) == ({"overageBudgetCap": 100.0}, {"overageBudgetCap": 250.5})
    assert {(entry["actor"], entry["userId"]) for entry in (first, second)} == {("user", "boss")}
    (plan,) = shop.audit("plan")
    assert (plan["actor"], plan["userId"]) == ("stripe", None)
    assert (plan["before"], plan["after"]) == ({"planId": "free"}, {"planId": "plan-starter"})
    (subscription,) = shop.audit("subscription")
    assert subscription["before"] is None
    assert subscription["after"]["status"] == "active"
    assert subscription.keys() == {"id", "at", "actor", "userId", "action", "before", "after"}
    times = [datetime.fromisoformat(entry["at"]) for entry in shop.get("/audit")["data"]]
    assert times == sorted(times, reverse=True)


def test_the_audit_comes_in_pages(shop: Shop) -> None:
    for amount in range(1, 6):
        shop.ask("PUT", "/overage-cap", {"capAmount": amount})
    pages = [shop.get(f"/audit?page={page}&pageSize=2") for page in (1, 2, 3)]
    assert [page["total"] for page in pages] == [5, 5, 5]
    shown = [entry["after"]["overageBudgetCap"] for page in pages for entry in page["data"]]
    assert shown == [5.0, 4.0, 3.0, 2.0, 1.0]


def test_who_is_deleted_is_no_longer_named(desk: Desk, shop: Shop) -> None:
    shop.ask("PUT", "/overage-cap", {"capAmount": 5})
    desk.sql("UPDATE users SET role = 'admin' WHERE tenant_id = %s AND id = 'member'", [shop.tenant_id])
    answer = desk.client.delete("/api/users/boss", headers=shop.admin)
    assert answer.status_code == 204, answer.text
    rows = desk.sql("SELECT actor FROM billing_audit WHERE tenant_id = %s", [shop.tenant_id])
    assert rows == [("erased",)]
