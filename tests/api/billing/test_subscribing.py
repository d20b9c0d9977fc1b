"""Checkout, portal and invoices, against the stand-in for Stripe over HTTP."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fixtures.desk import Desk, Shop
from tests.fixtures.platform import ROOT, wait_until
from tests.fixtures.standin import FAILING_CARD, GOOD_CARD

CHECKOUT = {"planId": "plan-growth", "interval": "monthly"}


@pytest.mark.parametrize("after", ["unpaid", "canceled"])
def test_a_payment_that_fails_keeps_service_for_a_week(after: str, desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    desk.standin.dunning(after)
    desk.standin.use_card(shop.customer, FAILING_CARD)
    desk.standin.advance(31 * 86_400 + 2 * 3_600)
    assert shop.status() == ("plan-starter", "past_due")
    since = shop.row("past_due_since")
    assert abs(since - datetime.now(UTC)) < timedelta(minutes=2)
    # The service's own clock decides about the week: Stripe's may be a test clock.
    shop.age(timedelta(days=7))
    assert shop.status() == ("free", "past_due")
    fall_back = {"before": {"planId": "plan-starter"}, "after": {"planId": "free"}}
    wait_until("the audit says so", lambda: fall_back.items() <= shop.audit("plan")[-1].items())
    desk.standin.advance(16 * 86_400)
    assert shop.status() == ("free", after)
    assert sum(fall_back.items() <= entry.items() for entry in shop.audit("plan")) == 1


def test_a_plan_that_lapsed_and_comes_back_is_in_the_audit_both_times(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    desk.standin.use_card(shop.customer, FAILING_CARD)
    desk.standin.advance(31 * 86_400 + 2 * 3_600)
    shop.age(timedelta(days=8))
    invoice = shop.get("/invoices")[0]["id"]
    shop.portal("card", card=GOOD_CARD)
    shop.portal("pay", invoice=invoice)
    assert shop.status() == ("plan-starter", "active")
    plans = [(entry["before"]["planId"], entry["after"]["planId"]) for entry in shop.audit("plan")]
    # Listed by when it came to be: that was before the test began.
    assert plans == [("plan-starter", "free"), ("free", "plan-starter"), ("free", "plan-starter")]
    lapsed = datetime.fromisoformat(shop.audit("plan")[0]["at"])
    assert abs(datetime.now(UTC) - timedelta(days=1) - lapsed) < timedelta(minutes=2)


def test_a_customer_deleted_in_the_dashboard_can_begin_again(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    gone = shop.customer
    desk.standin.library.customers.delete(gone)
    desk.standin.flush()
    assert shop.status() == ("free", "canceled")
    portal = shop.ask("POST", "/portal")
    assert (portal.status_code, "checkout" in portal.json()["detail"]) == (409, True)
    assert isinstance(shop.get("/invoices"), list)
    shop.subscribe("plan-growth")
    assert shop.status() == ("plan-growth", "active")
    assert shop.customer != gone


def test_plans_that_are_for_sale_are_public(desk: Desk) -> None:
    answer = desk.client.get("/api/billing/plans")
    assert answer.status_code == 200
    assert [plan["id"] for plan in answer.json()] == ["plan-starter", "plan-growth"]
    assert answer.json()[1] == {
        **{"id": "plan-growth", "name": "Growth", "monthlyPrice": 149, "annualPrice": 1430},
        **{"requestLimit": 100_000, "itemLimit": 10_000, "userLimit": 5_000},
    }


def test_who_never_subscribed_is_on_the_free_plan_for_the_month(shop: Shop) -> None:
    now = datetime.now(UTC)
    current = shop.get("/current")
    assert {name: current[name] for name in ("planId", "status", "interval", "cancelAtPeriodEnd")} == {
        **{"planId": "free", "status": "none", "interval": "monthly", "cancelAtPeriodEnd": False}
    }
    assert current["currentPeriodStart"] == f"{now:%Y-%m}-01T00:00:00Z"
    assert shop.get("/invoices") == []


def test_a_paid_checkout_is_an_active_subscription(desk: Desk, shop: Shop) -> None:
    url = shop.checkout(**{"plan": "plan-growth", "interval": "annual"})
    assert url.startswith(desk.standin.url)
    assert shop.status() == ("free", "none")  # a checkout alone is no subscription

    assert desk.standin.pay(url).status_code == 303
    desk.standin.flush()

    current = shop.get("/current")
    assert (current["planId"], current["status"], current["interval"]) == ("plan-growth", "active", "annual")
    start, end = (datetime.fromisoformat(current[f"currentPeriod{part}"]) for part in ("Start", "End"))
    assert abs(start.timestamp() - desk.standin.now()) < 120
    assert (end.year, end.month) == (start.year + 1, start.month)
    (invoice,) = shop.get("/invoices")
    assert (invoice["amountDue"], invoice["amountPaid"], invoice["currency"]) == (1430.0, 1430.0, "usd")
    assert invoice["status"] == "paid"
    assert invoice["number"]
    assert invoice["hostedUrl"].startswith(desk.standin.url)
    assert invoice.keys() == {
        *("id", "number", "status", "amountDue", "amountPaid", "currency", "createdAt", "hostedUrl")
    }


def test_a_refused_card_is_no_subscription(desk: Desk, shop: Shop) -> None:
    assert desk.standin.pay(shop.checkout(), "4000000000000002").status_code == 402
    desk.standin.flush()
    assert shop.status() == ("free", "none")


def test_a_second_checkout_is_a_conflict(shop: Shop) -> None:
    shop.subscribe()
    assert shop.ask("POST", "/checkout", CHECKOUT).status_code == 409


def test_a_second_checkout_is_a_conflict_before_the_first_ones_events_have_come(desk: Desk, shop: Shop) -> None:
    url = shop.checkout()
    desk.standin.webhooks(paused=True)
    try:
        assert desk.standin.pay(url).status_code == 303
        assert shop.status() == ("free", "none")
        assert shop.ask("POST", "/checkout", CHECKOUT).status_code == 409
        assert shop.status() == ("plan-starter", "active")  # what was found out on the way is kept
    finally:
        desk.standin.webhooks(paused=False)
        desk.standin.flush()
    assert len(shop.audit("subscription")) == 1


def test_of_two_open_checkouts_only_the_last_can_be_paid(desk: Desk, shop: Shop) -> None:
    first, second = shop.checkout(), shop.checkout("plan-growth")
    assert desk.standin.pay(first).status_code == 402
    assert desk.standin.pay(second).status_code == 303
    desk.standin.flush()
    assert shop.status() == ("plan-growth", "active")
    customers = {event["data"]["object"]["customer"] for event in desk.standin.events("checkout.session.completed")}
    assert shop.customer in customers


def test_a_tenant_has_one_customer(desk: Desk, shop: Shop) -> None:
    shop.checkout()
    customer = shop.customer
    shop.subscribe()
    assert shop.customer == customer
    assert desk.standin.library.subscriptions.list({"customer": customer}).data[0].metadata["tenant"] == shop.tenant_id


@pytest.mark.parametrize(
    "body",
    [
        {"planId": "free", "interval": "monthly"},
        {"planId": "unlimited", "interval": "monthly"},
        {"planId": "none", "interval": "monthly"},
        {"planId": "plan-growth", "interval": "weekly"},
        {"planId": "plan-growth"},
        {"interval": "monthly"},
    ],
    ids=str,
)
def test_what_is_not_for_sale_is_refused(body: Any, shop: Shop) -> None:
    answer = shop.ask("POST", "/checkout", body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] in ("planId", "interval")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/checkout", CHECKOUT),
        ("POST", "/portal", None),
        ("GET", "/invoices", None),
        ("GET", "/audit", None),
        ("PUT", "/overage-cap", {"capAmount": 1}),
    ],
)
def test_money_is_for_admins(method: str, path: str, body: Any, shop: Shop) -> None:
    assert shop.ask(method, path, body, by=shop.member).status_code == 403
    assert shop.ask(method, path, body, by=shop.key).status_code == 401
    assert shop.ask("GET", "/current", by=shop.member).status_code == 200


def test_the_portal_needs_a_customer(shop: Shop) -> None:
    assert shop.ask("POST", "/portal").status_code == 409


def test_a_plan_changed_in_the_portal_is_followed(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    (price,) = desk.standin.client.get("/v1/prices", params={"lookup_keys[0]": "plan-growth-monthly"}).json()["data"]
    shop.portal("plan", price=price["id"])
    assert shop.status() == ("plan-growth", "active")
    assert [entry["after"] for entry in shop.audit("plan")] == [{"planId": "plan-starter"}, {"planId": "plan-growth"}]


def test_a_cancellation_in_the_portal_holds_from_the_periods_end(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    shop.portal("cancel")
    current = shop.get("/current")
    assert (current["planId"], current["status"], current["cancelAtPeriodEnd"]) == ("plan-starter", "active", True)
    shop.portal("renew")
    assert shop.get("/current")["cancelAtPeriodEnd"] is False


def test_a_subscription_that_ends_leaves_the_free_plan_and_a_new_checkout(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    desk.standin.library.subscriptions.cancel(shop.row("subscription_id"))
    desk.standin.flush()
    assert shop.status() == ("free", "canceled")
    shop.subscribe("plan-growth")
    assert shop.status() == ("plan-growth", "active")


def test_a_price_that_lost_its_lookup_key_is_known_by_its_metadata(desk: Desk, shop: Shop) -> None:
    """Prices are raised by a new one that takes the key; whoever pays the old one is still on the plan."""
    shop.subscribe("plan-growth", "annual")
    library = desk.standin.library
    old = library.prices.list({"lookup_keys": ["plan-growth-annual"]}).data[0]
    raised = {"product": old.product, "currency": "usd", "unit_amount": 200_000, "recurring": {"interval": "year"}}
    key = {"lookup_key": "plan-growth-annual", "transfer_lookup_key": True, "metadata": {"planId": "plan-growth"}}
    library.prices.create({**raised, **key})
    library.subscriptions.update(shop.row("subscription_id"), {"metadata": {"touched": "yes"}})
    desk.standin.flush()
    assert shop.status() == ("plan-growth", "active")


def test_a_price_of_no_plan_waits_for_the_operator(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    library = desk.standin.library
    price = library.prices.create(
        {"currency": "usd", "unit_amount": 100, "recurring": {"interval": "month"}, "product_data": {"name": "Odd"}}
    )
    subscription = library.subscriptions.retrieve(shop.row("subscription_id"))
    item = subscription["items"].data[0].id
    library.subscriptions.update(subscription.id, {"items": [{"id": item, "price": price.id}]})
    desk.standin.flush()
    # Of the same subscription we know what plan it was: service goes on.
    assert shop.status() == ("plan-starter", "active")


def delete(desk: Desk, shop: Shop, **environment: str) -> str:
    """Delete the tenant by the command; what it says on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "api", "delete-tenant", "--id", shop.tenant_id, "--yes"],
        cwd=ROOT,
        env=os.environ | desk.standin.environment | {"DATABASE_URL": desk.database_url} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("reachable", [True, False])
def test_a_tenant_that_is_deleted_pays_no_longer(reachable: bool, desk: Desk, shop: Shop) -> None:
    """Where Stripe cannot be told, whoever deletes is told what is left to do."""
    shop.subscribe()
    subscription, customer = shop.row("subscription_id", "customer_id")
    said = delete(desk, shop, **({} if reachable else {"STRIPE_API_BASE": "http://127.0.0.1:9"}))
    status = desk.standin.library.subscriptions.retrieve(subscription).status
    assert status == ("canceled" if reachable else "active")
    if reachable:
        assert f"The subscription {subscription} has ended at Stripe." in said
        assert f"There remain the customer {customer} with its cards and 1 invoices: delete the customer" in said
    else:
        assert "Nothing was ended at Stripe" in said
        assert f"Delete the customer {customer} and its subscription {subscription} in Stripe's dashboard" in said
    assert desk.sql("SELECT 1 FROM stripe_events WHERE tenant_id = %s", [shop.tenant_id]) == []
    desk.standin.flush()


def test_a_subscription_whose_event_has_not_come_and_an_open_checkout_end_with_the_tenant(
    desk: Desk, shop: Shop
) -> None:
    library = desk.standin.library
    url = shop.checkout()
    customer = shop.customer
    desk.standin.webhooks(paused=True)
    try:
        assert desk.standin.pay(url).status_code == 303
        price = library.prices.list({"lookup_keys": ["plan-growth-monthly"]}).data[0].id
        line = {"line_items": [{"price": price, "quantity": 1}], "success_url": "http://shop.example/done"}
        left_open = library.checkout.sessions.create({"mode": "subscription", "customer": customer, **line})
        said = delete(desk, shop)
    finally:
        desk.standin.webhooks(paused=False)
        desk.standin.flush()
    (subscription,) = library.subscriptions.list({"customer": customer, "status": "all"}).data
    assert (subscription.status, f"{subscription.id} has ended" in said) == ("canceled", True)
    assert library.checkout.sessions.retrieve(left_open.id).status == "expired"


def test_what_was_owed_and_not_charged_is_said(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    desk.sql(
        "INSERT INTO overage_charges (tenant_id, cycle_start, units, amount_cents) VALUES (%s, now(), 2000, 1200)",
        [shop.tenant_id],
    )
    desk.sql(
        "INSERT INTO usage_cycles (tenant_id, cycle_start, cycle_end, units, anchor) "
        "SELECT tenant_id, anchor, now() + interval '20 days', 10500, anchor FROM subscriptions WHERE tenant_id = %s",
        [shop.tenant_id],
    )  # 3.00 of the month that runs
    assert "Overage of 15.00 was not charged yet, and is not charged any more." in delete(desk, shop)
