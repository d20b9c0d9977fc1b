"""The overage of a cycle is charged once, whatever fails and whenever it is tried again."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.billing.gateway import Gateway
from api.billing.overage import report_overage
from api.billing.problems import StripeUnavailable
from api.database.engine import Database
from tests.fixtures.desk import Desk, Shop
from tests.fixtures.live import api_process
from tests.fixtures.platform import ROOT, wait_until
from tests.fixtures.standin import DAY, GOOD_CARD, HOUR

NOW = datetime.now(UTC).replace(microsecond=0)
ENDED = NOW - timedelta(hours=2)
ITEMS = "/v1/invoiceitems"


def report(desk: Desk, as_of: datetime | None = None, **changes: Any) -> int:
    """What a process of its own would report."""

    async def run() -> int:
        settings = desk.configuration.billing.model_copy(update=changes)
        gateway, database = Gateway(settings), Database(desk.database_url, pool_min=1)
        try:
            return await report_overage(database, gateway, as_of, wait=True)
        finally:
            await gateway.close()
            await database.close()

    return asyncio.run(run())


def used(shop: Shop, units: int, plan: str = "plan-starter", end: datetime = ENDED, days: int = 30) -> None:
    """A cycle of this plan that has ended with so many units used."""
    start = end - timedelta(days=days)
    shop.desk.sql(
        "INSERT INTO usage_cycles (tenant_id, cycle_start, cycle_end, units, anchor) VALUES (%s, %s, %s, %s, %s)",
        [shop.tenant_id, start, end, units, start],
    )
    shop.desk.sql(
        "INSERT INTO plan_periods (tenant_id, started_at, plan_id, anchor) VALUES (%s, %s, %s, %s)",
        [shop.tenant_id, start, plan, start],
    )


def charges(shop: Shop) -> list[tuple[int, int, bool]]:
    """Units, cents and whether Stripe was told, cycle by cycle."""
    return [
        (units, cents, told)
        for units, cents, told in shop.desk.sql(
            "SELECT units, amount_cents, reported_at IS NOT NULL FROM overage_charges "
            "WHERE tenant_id = %s ORDER BY cycle_start",
            [shop.tenant_id],
        )
    ]


def items(shop: Shop) -> list[Any]:
    """The invoice items at Stripe, oldest first."""
    return list(reversed(shop.desk.standin.library.invoice_items.list({"customer": shop.customer}).data))


def overage(shop: Shop) -> list[Any]:
    return [item for item in items(shop) if "cycle" in item.metadata]


@pytest.fixture
def subscribed(shop: Shop) -> Shop:
    shop.subscribe()
    return shop


def test_it_is_on_the_invoice_of_its_own_cycle(desk: Desk, subscribed: Shop) -> None:
    """The month is over, its invoice is a draft for an hour, and the charge is in it."""
    desk.standin.advance(to=int(subscribed.row("current_period_end").timestamp()) + 60)
    used(subscribed, 11_000)
    report(desk)
    desk.standin.advance(2 * HOUR)
    newest = subscribed.get("/invoices")[0]
    assert (newest["status"], newest["amountPaid"]) == ("paid", 49.0 + 6.0)


@pytest.mark.parametrize("ended", [False, True], ids=["annual", "ended"])
def test_it_has_an_invoice_of_its_own_where_none_comes_soon(ended: bool, desk: Desk, shop: Shop) -> None:
    shop.subscribe("plan-starter", "monthly" if ended else "annual")
    if ended:
        desk.standin.library.subscriptions.cancel(shop.row("subscription_id"))
        desk.standin.flush()
    used(shop, 11_000)
    report(desk)
    desk.sql("UPDATE overage_charges SET reported_at = NULL WHERE tenant_id = %s", [shop.tenant_id])
    report(desk)  # as after a crash before the mark
    desk.standin.advance(2 * HOUR)
    paid = [invoice for invoice in shop.get("/invoices") if invoice["status"] == "paid"]
    assert [invoice["amountPaid"] for invoice in paid] == [6.0, 49.0 if ended else 470.0]


# plan-starter: 60 cents for 100 requests past 10,000, at most 50 without another cap.
@pytest.mark.parametrize(
    ("units", "cents"),
    [
        (10_001, 0),  # 0.6 cents: rounded down
        (10_002, 1),  # 1.2
        (10_100, 60),
        (11_234, 740),  # 740.4
        (18_333, 4_999),  # 4,999.8
        (18_334, 5_000),  # 5,000.4: the cap
        (999_999, 5_000),  # whatever the counters overshot
    ],
)
def test_the_charge_is_rounded_down_and_never_above_the_cap(units: int, cents: int, desk: Desk, shop: Shop) -> None:
    shop.checkout()
    used(shop, units)
    report(desk)
    assert charges(shop) == [(units - 10_000, cents, True)]
    assert [item.amount for item in overage(shop)] == [cents] * (cents > 0)


@pytest.mark.parametrize(
    ("currency", "price", "amount", "shown"),
    [
        ("usd", 4_900, 740, 49.0),
        ("jpy", 4_900, 7, 4_900.0),  # it has no cents: 7.40 is rounded down
        ("kwd", 49_000, 7_400, 49.0),  # a thousand fils are a dinar
        ("isk", 490_000, 700, 4_900.0),  # sent with two decimals, which must be zero
    ],
)
def test_a_charge_is_in_the_currency_of_the_subscription(
    currency: str, price: int, amount: int, shown: float, desk: Desk, shop: Shop
) -> None:
    shop.checkout()
    library = desk.standin.library
    values = {"currency": currency, "unit_amount": price, "recurring": {"interval": "month"}}
    names = {"product_data": {"name": "Starter"}, "metadata": {"planId": "plan-starter"}}
    desk.standin.use_card(shop.customer, GOOD_CARD)
    made = library.prices.create({**values, **names})
    library.subscriptions.create({"customer": shop.customer, "items": [{"price": made.id}]})
    desk.standin.flush()
    used(shop, 11_234)
    used(shop, 10_002, end=ENDED - timedelta(days=60))  # 0.01, which not every currency has
    report(desk)
    items = {item.amount for item in overage(shop)}
    assert {item.currency for item in overage(shop)} == {currency}
    assert amount in items
    assert items <= {amount, 1, 10}
    assert charges(shop) == [(2, 1, True), (1_234, 740, True)]
    (first,) = shop.get("/invoices")
    assert (first["amountDue"], first["currency"]) == (shown, currency)


def test_what_is_within_the_limit_or_without_one_costs_nothing(desk: Desk, shop: Shop) -> None:
    shop.checkout()
    used(shop, 10_000)
    used(shop, 5_000, plan="free", end=ENDED - timedelta(days=60))
    used(shop, 1_000_000, plan="unlimited", end=ENDED - timedelta(days=120))
    report(desk)
    assert charges(shop) == [(4_000, 0, True)]
    assert overage(shop) == []


def test_a_cycle_is_reported_when_it_is_over_and_settled(desk: Desk, subscribed: Shop) -> None:
    now = datetime.now(UTC)
    used(subscribed, 20_000, end=now - timedelta(seconds=30))
    report(desk)
    assert charges(subscribed) == []
    desk.sql(
        "UPDATE usage_cycles SET cycle_end = now() - interval '61 seconds' WHERE tenant_id = %s", [subscribed.tenant_id]
    )
    report(desk)
    assert len(charges(subscribed)) == 1


def test_reporting_again_charges_nothing_again(desk: Desk, subscribed: Shop) -> None:
    used(subscribed, 11_000)
    assert [report(desk) for _ in range(3)] == [1, 0, 0]
    (item,) = overage(subscribed)
    assert (item.amount, item.currency) == (600, "usd")
    start = f"{ENDED - timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}"
    assert item.metadata.to_dict() == {"tenant": subscribed.tenant_id, "cycle": start}
    assert "1,000 requests" in item.description


def test_several_at_once_charge_once(desk: Desk, subscribed: Shop) -> None:
    used(subscribed, 11_000)

    async def run() -> list[int]:
        databases = [Database(desk.database_url, pool_min=1) for _ in range(4)]
        gateway = Gateway(desk.configuration.billing)
        try:
            return await asyncio.gather(*(report_overage(each, gateway) for each in databases))
        finally:
            await gateway.close()
            for each in databases:
                await each.close()

    assert sum(asyncio.run(run())) == 1
    assert len(overage(subscribed)) == 1


@pytest.mark.parametrize("days", [0, 3])
def test_an_answer_that_was_lost_is_found_again(days: int, desk: Desk, subscribed: Shop) -> None:
    """Stripe made the item and we never heard: days later it has forgotten the idempotency key, and not the item."""
    used(subscribed, 11_000)
    lost = {"method": "POST", "path": ITEMS, "status": 500, "after": True, "times": 2}  # the library asks twice
    with desk.standin.faulty(**lost), pytest.raises(StripeUnavailable):
        report(desk)
    assert len(overage(subscribed)) == 1
    assert charges(subscribed) == [(1_000, 600, False)]
    desk.standin.advance(days * DAY)
    assert report(desk) == 1
    assert len(overage(subscribed)) == 1
    assert charges(subscribed) == [(1_000, 600, True)]


def test_a_process_that_died_before_its_mark_is_followed_by_one_that_finds_the_item(
    desk: Desk, subscribed: Shop
) -> None:
    used(subscribed, 11_000)
    report(desk)
    desk.sql(
        "UPDATE overage_charges SET reported_at = NULL, invoice_item_id = NULL WHERE tenant_id = %s",
        [subscribed.tenant_id],
    )
    desk.standin.advance(2 * DAY)
    assert report(desk) == 1
    (item,) = overage(subscribed)
    ((kept,),) = desk.sql("SELECT invoice_item_id FROM overage_charges WHERE tenant_id = %s", [subscribed.tenant_id])
    assert kept == item.id


def test_while_stripe_is_down_the_charge_waits(desk: Desk, subscribed: Shop) -> None:
    used(subscribed, 11_000)
    with desk.standin.faulty(path="/v1/", status=500), pytest.raises(StripeUnavailable):
        report(desk)
    assert charges(subscribed) == [(1_000, 600, False)]
    assert report(desk) == 1
    assert len(overage(subscribed)) == 1


def test_a_charge_that_stripe_refuses_keeps_no_other_from_being_made(desk: Desk, subscribed: Shop) -> None:
    other = desk.shop()
    other.checkout()
    used(other, 11_000, end=ENDED - timedelta(days=1))
    used(subscribed, 11_000)
    desk.sql("UPDATE subscriptions SET customer_id = 'cus_gone' WHERE tenant_id = %s", [other.tenant_id])
    report(desk)
    assert charges(subscribed) == [(1_000, 600, True)]
    assert charges(other) == [(1_000, 600, False)]
    desk.sql("DELETE FROM overage_charges WHERE tenant_id = %s", [other.tenant_id])
    desk.sql("DELETE FROM usage_cycles WHERE tenant_id = %s", [other.tenant_id])


def test_the_cap_is_that_of_the_cycles_end(desk: Desk, subscribed: Shop) -> None:
    """Raised the day after, it counts for the next cycle."""
    assert subscribed.ask("PUT", "/overage-cap", {"capAmount": 3.5}).status_code == 200
    used(subscribed, 50_000, end=datetime.now(UTC))
    assert subscribed.ask("PUT", "/overage-cap", {"capAmount": 100}).status_code == 200
    report(desk, datetime.now(UTC))
    assert charges(subscribed) == [(40_000, 350, True)]


def test_a_later_cap_and_plan_do_not_change_what_was_fixed(desk: Desk, subscribed: Shop) -> None:
    used(subscribed, 50_000)
    with desk.standin.faulty(path="/v1/", status=500), pytest.raises(StripeUnavailable):
        report(desk)
    assert subscribed.ask("PUT", "/overage-cap", {"capAmount": 0}).status_code == 200
    report(desk)
    assert [item.amount for item in overage(subscribed)] == [5_000]


def test_the_api_reports_by_itself(desk: Desk, subscribed: Shop, tmp_path: Path) -> None:
    used(subscribed, 11_000)
    with api_process(desk.database_url, tmp_path, OVERAGE_SECONDS="0.5", **desk.standin.environment):
        wait_until("it is charged", lambda: charges(subscribed) == [(1_000, 600, True)])
    assert len(overage(subscribed)) == 1


def test_the_command_reports_when_it_is_told(desk: Desk, subscribed: Shop) -> None:
    used(subscribed, 11_000, end=NOW + timedelta(days=300))
    future = f"{NOW + timedelta(days=400):%Y-%m-%dT%H:%M:%SZ}"

    def command(key: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "api", "report-overage", "--as-of", future],
            cwd=ROOT,
            env=os.environ | desk.standin.environment | {"DATABASE_URL": desk.database_url, "STRIPE_API_KEY": key},
            capture_output=True,
            text=True,
            check=False,
        )

    refused, missing = command("sk_live_x"), command("")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "after its end" in refused.stderr
    assert missing.returncode == 1
    assert "STRIPE_API_KEY" in missing.stderr
    assert overage(subscribed) == []
    done = command(desk.standin.environment["STRIPE_API_KEY"])
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert len(overage(subscribed)) == 1
