"""A tenant's life as a customer, over HTTP: the API is one process, the stand-in for Stripe another."""

import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import httpx

from tests.api.conftest import configuration_of
from tests.fixtures.desk import HOOK, Desk, Shop
from tests.fixtures.live import api_process
from tests.fixtures.platform import ROOT, free_ports, wait_until
from tests.fixtures.standin import FAILING_CARD, GOOD_CARD, HOUR, StandIn, running_standin

EVENT = {"userId": "visitor", "itemId": "lamp", "interactionType": "view"}


def interact(shop: Shop, rows: int) -> None:
    """Use one unit for each row."""
    for _ in range(-(-rows // 1_000)):
        body = {"interactions": [EVENT] * min(rows, 1_000)}
        answer = shop.desk.client.post("/api/v1/interactions/batch", json=body, headers=shop.key)
        assert answer.status_code == 200, answer.text
        assert answer.json()["failed"] == 0
        rows -= 1_000


def recommend(shop: Shop) -> httpx.Response:
    body = {"userId": "visitor", "count": 1, "excludeSeen": "none"}
    return shop.desk.client.post("/api/v1/recommend", json=body, headers=shop.key)


def counted_after_one_more(shop: Shop) -> int:
    """Units of the current cycle."""
    assert recommend(shop).status_code == 200
    return int(shop.get("/usage")["requestsUsed"])


def report_overage(standin: StandIn, database_url: str, as_of: datetime) -> str:
    """What the command prints; the month that passed at Stripe has not passed here."""
    done = subprocess.run(
        [sys.executable, "-m", "api", "report-overage", "--as-of", f"{as_of:%Y-%m-%dT%H:%M:%SZ}"],
        cwd=ROOT,
        env=os.environ | standin.environment | {"DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_from_the_first_plan_to_the_last_invoice(database_url: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (
        running_standin(tmp_path, f"http://127.0.0.1:{port}{HOOK}", by_command=True) as standin,
        api_process(database_url, tmp_path, port, **standin.environment) as api,
        httpx.Client(base_url=api.url, timeout=30) as client,
    ):
        shop = Desk(client, standin, database_url, configuration_of(database_url, tmp_path)).shop()
        item = {"id": "lamp", "metadata": {"title": "Lamp"}}
        assert client.post("/api/items", json=item, headers=shop.key).status_code == 201

        # Plan, checkout, webhook, active.
        assert client.get("/api/billing/plans").json()[0]["id"] == "plan-starter"
        assert shop.status() == ("free", "none")
        shop.subscribe("plan-starter")
        assert shop.status() == ("plan-starter", "active")

        # Usage, then overage: 500 requests past 10,000 at 60 cents a hundred.
        wait_until("the plan counts", lambda: shop.get("/usage")["requestLimit"] == 10_000)
        # The database knows the new cycle before the process that counts does, which serves in the old one till then.
        wait_until("requests count in its cycle", lambda: counted_after_one_more(shop) > 0)
        interact(shop, 10_500 - shop.get("/usage")["requestsUsed"])
        usage = shop.get("/usage")
        assert (usage["requestsUsed"], usage["overageUnits"], usage["overageAmount"]) == (10_500, 500, 3.0)
        assert usage["overageBudgetCap"] == 50

        # A cap that is used up is a 402; raised, it is not.
        assert shop.ask("PUT", "/overage-cap", {"capAmount": 3}).json()["budgetExceeded"] is True
        wait_until("the cap counts", lambda: recommend(shop).status_code == 402)
        assert "overage-cap" in recommend(shop).json()["detail"]
        assert shop.ask("PUT", "/overage-cap", {"capAmount": 20.5}).json()["budgetExceeded"] is False
        wait_until("the raised cap counts", lambda: recommend(shop).status_code == 200)
        interact(shop, 250)
        owed = shop.get("/usage")["overageAmount"]
        assert owed > 4.5
        first_invoice = round(49 + owed, 2)

        # The month ends: its invoice takes the overage along, once, and is paid.
        end = datetime.fromisoformat(shop.get("/current")["currentPeriodEnd"])
        standin.advance(to=int(end.timestamp()) + 60)
        assert [report_overage(standin, database_url, end + timedelta(minutes=1)) for _ in range(2)] == ["1", "0"]
        standin.advance(2 * HOUR)
        invoices = shop.get("/invoices")
        assert [(each["status"], each["amountPaid"]) for each in invoices] == [
            ("paid", first_invoice),
            ("paid", 49.0),
        ]
        assert datetime.fromisoformat(shop.get("/current")["currentPeriodStart"]) == end

        # Another plan, in the portal.
        growth = standin.library.prices.list({"lookup_keys": ["plan-growth-monthly"]}).data[0].id
        shop.portal("plan", price=growth)
        assert shop.status() == ("plan-growth", "active")
        # The month began minutes ago on the smaller plan, which weighs as long as it was held.
        wait_until("the plan counts", lambda: 99_000 < shop.get("/usage")["requestLimit"] < 100_000)

        # A payment fails, and service goes on; the card is changed, the invoice paid.
        standin.use_card(shop.customer, FAILING_CARD)
        end = datetime.fromisoformat(shop.get("/current")["currentPeriodEnd"])
        standin.advance(to=int(end.timestamp()) + 2 * HOUR)
        assert shop.status() == ("plan-growth", "past_due")
        assert recommend(shop).status_code == 200
        open_invoice = shop.get("/invoices")[0]
        assert (open_invoice["status"], open_invoice["amountPaid"]) == ("open", 0.0)
        shop.portal("card", card=GOOD_CARD)
        shop.portal("pay", invoice=open_invoice["id"])
        assert shop.status() == ("plan-growth", "active")

        # Cancelled: until the period ends all is as before, then the plan is free.
        shop.portal("cancel")
        current = shop.get("/current")
        assert (current["planId"], current["cancelAtPeriodEnd"]) == ("plan-growth", True)
        standin.advance(to=int(datetime.fromisoformat(current["currentPeriodEnd"]).timestamp()) + 2 * HOUR)
        assert shop.status() == ("free", "canceled")
        wait_until("the plan counts", lambda: shop.get("/usage")["requestLimit"] == 1_000)

        # All of it can be read afterwards.
        plans = [(entry["before"]["planId"], entry["after"]["planId"]) for entry in shop.audit("plan")]
        assert plans == [("free", "plan-starter"), ("plan-starter", "plan-growth"), ("plan-growth", "free")]
        statuses = [entry["after"]["status"] for entry in shop.audit("subscription")]
        assert [now for now, before in zip(statuses, [None, *statuses], strict=False) if now != before] == [
            *("active", "past_due", "active", "canceled")
        ]
        assert [entry["after"]["overageBudgetCap"] for entry in shop.audit("cap")] == [3.0, 20.5]
        assert {entry["actor"] for entry in shop.audit("cap")} == {"user"}
        unhandled = shop.desk.sql("SELECT type, error FROM stripe_events WHERE handled_at IS NULL")
        assert unhandled == []
