"""No order of clicks remits what is owed: changes of plan, interval and cap, and a cancellation, at the desk."""

import time
from datetime import UTC, datetime, timedelta

import pytest
import stripe

from api.billing.subscriptions import anchor_of
from api.metering.cycles import cycle_of
from tests.api.billing.test_overage import charges, report
from tests.fixtures.desk import HOOK, Desk, Shop
from tests.fixtures.standin import signed


def use(shop: Shop, units: int) -> None:
    """Have the month of this moment hold so many units."""
    anchor = shop.row("anchor")
    month = cycle_of(anchor, datetime.now(UTC))
    shop.desk.sql(
        "INSERT INTO usage_cycles (tenant_id, cycle_start, cycle_end, units, anchor) VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT (tenant_id, cycle_start) DO UPDATE SET units = excluded.units",
        [shop.tenant_id, *month, units, anchor],
    )


def price(desk: Desk, plan: str, interval: str = "monthly") -> str:
    found = desk.standin.library.prices.list({"lookup_keys": [f"{plan}-{interval}"]}).data[0].id
    return str(found)


def change(shop: Shop, plan: str, interval: str = "monthly") -> None:
    """Choose another plan or interval in the portal."""
    shop.portal("plan", price=price(shop.desk, plan, interval))


def cancel(shop: Shop) -> None:
    shop.desk.standin.library.subscriptions.cancel(shop.row("subscription_id"))
    shop.desk.standin.flush()


@pytest.fixture
def starter(shop: Shop) -> Shop:
    """On Starter since a moment ago, with 12,000 of 10,000 requests used: 12.00 are owed."""
    shop.subscribe("plan-starter")
    use(shop, 12_000)
    assert shop.get("/usage")["overageAmount"] == 12.0
    return shop


def test_up_and_down_again_owes_what_was_owed(starter: Shop) -> None:
    change(starter, "plan-growth")
    up = starter.get("/usage")
    assert (up["requestLimit"] > 99_000, up["overageAmount"]) == (True, 0.0)
    change(starter, "plan-starter")
    down = starter.get("/usage")
    # Growth was held for seconds: each is worth 90,000 / 2,592,000 requests.
    assert 10_000 <= down["requestLimit"] < 10_050
    assert 11.7 <= down["overageAmount"] <= 12.0


def test_switching_the_interval_there_and_back_keeps_the_usage(desk: Desk, shop: Shop) -> None:
    shop.subscribe("plan-starter")
    use(shop, 2_000)
    anchor = shop.row("anchor")
    used = [shop.get("/usage")["requestsUsed"]]
    for interval in ("annual", "monthly"):
        desk.standin.advance(2)  # Stripe's own anchor moves to the switch
        change(shop, "plan-starter", interval)
        used.append(shop.get("/usage")["requestsUsed"])
    assert used == [2_000, 2_000, 2_000]
    assert shop.row("anchor") == anchor
    assert shop.row("billing_cycle_anchor") > anchor


def test_a_cancellation_charges_what_is_owed_though_the_cap_is_lowered_after_it(desk: Desk, starter: Shop) -> None:
    cancel(starter)
    assert starter.status() == ("free", "canceled")
    assert starter.get("/usage")["requestLimit"] == 1_000
    assert starter.ask("PUT", "/overage-cap", {"capAmount": 0}).status_code == 200
    report(desk, datetime.now(UTC))
    assert charges(starter) == [(2_000, 1_200, True)]


def test_another_subscription_after_it_begins_a_month_of_its_own(desk: Desk, starter: Shop) -> None:
    cancel(starter)
    desk.standin.advance(1)
    starter.subscribe("plan-growth")
    assert starter.get("/usage")["requestsUsed"] == 0
    report(desk, datetime.now(UTC))
    assert charges(starter) == [(2_000, 1_200, True)]


def test_a_cap_that_is_lowered_between_two_changes_remits_nothing(starter: Shop) -> None:
    change(starter, "plan-growth")
    refused = starter.ask("PUT", "/overage-cap", {"capAmount": 0})
    assert (refused.status_code, "12.00" in refused.json()["detail"]) == (409, True)
    change(starter, "plan-starter")
    assert starter.get("/usage")["overageAmount"] >= 11.7


def test_the_lower_cap_of_a_smaller_plan_remits_nothing(shop: Shop) -> None:
    """300,000 on Growth: 400.00 owed. Starter's cap is 50.00; by Starter's terms they are more than Growth's cap."""
    shop.subscribe("plan-growth")
    use(shop, 300_000)
    assert shop.get("/usage")["overageAmount"] == 400.0
    change(shop, "plan-starter")
    found = shop.get("/usage")
    assert (found["overageAmount"], found["overageBudgetCap"], found["budgetExceeded"]) == (500.0, 500, True)


def test_the_limit_of_a_large_plan_is_not_had_for_the_cap_of_a_small_one(shop: Shop) -> None:
    """Up, use all that Growth allows, and down again: nothing was owed on Growth, and Starter's cap is 50.00.

    By time the month is Starter's: nearly 90,000 requests beyond it, 540.00, up to the cap under which they were used.
    """
    shop.subscribe("plan-starter")
    change(shop, "plan-growth")
    use(shop, 100_000)
    assert shop.get("/usage")["overageAmount"] == 0.0
    change(shop, "plan-starter")
    found = shop.get("/usage")
    assert (found["overageAmount"], found["overageBudgetCap"], found["budgetExceeded"]) == (500.0, 500, True)


def test_the_tenants_own_cap_holds_through_changes(shop: Shop) -> None:
    shop.subscribe("plan-growth")
    assert shop.ask("PUT", "/overage-cap", {"capAmount": 20}).status_code == 200
    use(shop, 300_000)
    change(shop, "plan-starter")
    found = shop.get("/usage")
    assert (found["overageAmount"], found["overageBudgetCap"]) == (20.0, 20)


def test_a_change_counts_from_when_it_was_made_though_its_event_comes_late(desk: Desk, shop: Shop) -> None:
    """The stand-in's clock may be ahead of ours, so the event that comes late has a time of the test."""
    shop.subscribe("plan-starter")
    desk.standin.webhooks(paused=True)
    try:
        time.sleep(2.1)
        library = desk.standin.library
        subscription = library.subscriptions.retrieve(shop.row("subscription_id"))
        item = {"id": subscription["items"].data[0].id, "price": price(desk, "plan-growth")}
        library.subscriptions.update(subscription.id, {"items": [item]})
        made = int(time.time()) - 1
        late = {"id": f"evt_late_{shop.tenant_id}", "object": "event", "type": "customer.subscription.updated"}
        about = {"id": subscription.id, "object": "subscription", "customer": shop.customer}
        body, headers = signed({**late, "created": made, "data": {"object": about}})
        assert desk.client.post(HOOK, content=body, headers=headers).status_code == 200
    finally:
        desk.standin.webhooks(paused=False)
        desk.standin.flush()
    held = "SELECT plan_id, started_at FROM plan_periods WHERE tenant_id = %s ORDER BY started_at"
    rows = desk.sql(held, [shop.tenant_id])
    assert [plan_id for plan_id, _ in rows] == ["plan-starter", "plan-growth"]
    assert rows[1][1] == datetime.fromtimestamp(made, UTC)
    desk.standin.redeliver()
    desk.standin.flush()
    assert desk.sql(held, [shop.tenant_id]) == rows


def test_a_payment_that_never_succeeds_brings_no_earlier_plan_back(desk: Desk) -> None:
    """A tenant that was created with a plan of its own, and whose subscription ended."""
    shop = desk.shop("unlimited")
    shop.subscribe("plan-starter")
    cancel(shop)
    library = desk.standin.library
    desk.standin.use_card(shop.customer, "4000000000000341")
    library.subscriptions.create({"customer": shop.customer, "items": [{"price": price(desk, "plan-growth")}]})
    desk.standin.flush()
    assert shop.status() == ("free", "incomplete")


@pytest.mark.parametrize(
    ("start", "anchor"),
    [
        ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z"),
        ("2026-02-01T00:00:00Z", "2026-02-01T00:00:00.000001Z"),  # no month of it is taken for a calendar month
        ("2026-02-01T00:00:01Z", "2026-02-01T00:00:01Z"),
    ],
)
def test_months_are_counted_from_the_beginning_of_the_subscription(start: str, anchor: str) -> None:
    began = int(datetime.fromisoformat(start).timestamp())
    moved = began + timedelta(days=40) // timedelta(seconds=1)
    values = {"start_date": began, "billing_cycle_anchor": moved}
    found = stripe.Subscription.construct_from(values, "sk_test_x")
    assert anchor_of(found, datetime.now(UTC)) == datetime.fromisoformat(anchor)


def test_a_clock_of_stripe_that_is_ahead_moves_no_anchor_into_the_future() -> None:
    now = datetime.now(UTC)
    found = stripe.Subscription.construct_from({"start_date": int(now.timestamp()) + 5}, "sk_test_x")
    assert anchor_of(found, now) == now
