"""Without keys, and while Stripe is slow or down: routes that need Stripe answer 503, all others work."""

import threading
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from api.app import create_app
from configs.billing import BillingSettings
from tests.fixtures.desk import BILLING_PATH, HOOK, Desk, Shop
from tests.fixtures.live import served
from tests.fixtures.people import PASSWORD
from tests.fixtures.platform import wait_until
from tests.fixtures.standin import signed

CHECKOUT = {"planId": "plan-growth", "interval": "monthly"}
CALLS = [("POST", "/checkout", CHECKOUT), ("POST", "/portal", None), ("GET", "/invoices", None)]


@pytest.mark.parametrize(
    ("missing", "needed_by"),
    [
        ("STRIPE_API_KEY", [*CALLS, ("POST", "/webhook", None)]),
        ("STRIPE_WEBHOOK_SECRET", [CALLS[0], ("POST", "/webhook", None)]),
    ],
)
def test_a_setting_that_is_missing_is_named(missing: str, needed_by: list[Any], desk: Desk, shop: Shop) -> None:
    names = {"STRIPE_API_KEY": "api_key", "STRIPE_WEBHOOK_SECRET": "webhook_secret"}
    settings = desk.standin.settings(**{names[missing]: None})
    with (
        served(create_app(replace(desk.configuration, billing=settings))) as url,
        httpx.Client(base_url=url) as client,
    ):
        for method, path, body in needed_by:
            content, headers = signed({"id": "evt_1", "type": "x", "created": 1, "data": {"object": {}}})
            request = {"content": content} if path == "/webhook" else {"json": body}
            answer = client.request(method, f"/api/billing{path}", headers={**shop.admin, **headers}, **request)
            assert answer.status_code == 503, (path, answer.text)
            assert missing in answer.json()["detail"]
        for path in ("/plans", "/current", "/usage", "/audit"):
            assert client.get(f"/api/billing{path}", headers=shop.admin).status_code == 200
        cap = client.put("/api/billing/overage-cap", json={"capAmount": 1}, headers=shop.admin)
        assert cap.status_code == 200


def test_an_empty_key_is_none() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRIPE_API_KEY", "")
        assert BillingSettings().api_key is None


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429}, {"status": None, "delay_seconds": 6}], ids=str)
def test_while_stripe_does_not_answer_money_waits(fault: dict[str, Any], desk: Desk, shop: Shop) -> None:
    shop.checkout()
    settings = desk.standin.settings(timeout_seconds=0.5)
    with (
        served(create_app(replace(desk.configuration, billing=settings))) as url,
        httpx.Client(base_url=url, timeout=30, headers=shop.admin) as client,
        desk.standin.faulty(path="/v1/", **fault),
    ):
        for method, path, body in CALLS:
            answer = client.request(method, f"/api/billing{path}", json=body)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["content-type"] == "application/problem+json"
    assert shop.status() == ("free", "none")


def test_stripe_refusing_the_key_is_for_the_operator(desk: Desk, shop: Shop) -> None:
    settings = desk.standin.settings(api_key="sk_test_wrong")
    with (
        served(create_app(replace(desk.configuration, billing=settings))) as url,
        httpx.Client(base_url=url, headers=shop.admin) as client,
    ):
        answer = client.post("/api/billing/checkout", json=CHECKOUT)
        assert answer.status_code == 503
        assert "sk_test" not in answer.text


def test_a_price_that_stripe_does_not_have_is_named(desk: Desk, shop: Shop) -> None:
    price = desk.standin.library.prices.list({"lookup_keys": ["plan-growth-annual"]}).data[0].id
    desk.standin.library.prices.update(price, {"active": False})
    try:
        answer = shop.ask("POST", "/checkout", {"planId": "plan-growth", "interval": "annual"})
        assert answer.status_code == 503
        assert "plan-growth-annual" in answer.json()["detail"]
    finally:
        desk.standin.library.prices.update(price, {"active": True})


def test_keys_of_calls_that_hang_on_stripe_hold_no_connection(desk: Desk, shop: Shop) -> None:
    """Twenty checkouts and portals with an `Idempotency-Key`, and Stripe does not answer: others are answered."""
    shop.checkout()
    done: list[int] = []

    def hang(number: int) -> None:
        path, body = (("/checkout", CHECKOUT), ("/portal", None))[number % 2]
        content = {} if body is None else {"json": body}
        headers = {**shop.admin, "Idempotency-Key": f"hanging-{number}"}
        done.append(desk.client.post(BILLING_PATH + path, headers=headers, **content).status_code)

    threads = [threading.Thread(target=hang, args=[number]) for number in range(20)]  # there are 16 connections
    login = {"email": f"boss@{shop.tenant_id}.example", "password": PASSWORD}
    with desk.standin.faulty(path="/v1/", status=None, delay_seconds=9):
        for thread in threads:
            thread.start()
        wait_until(
            "all to wait for Stripe",
            lambda: (
                desk.sql(
                    "SELECT count(*) FROM idempotency_claims WHERE tenant_id = %s AND claimed_until > now()",
                    [shop.tenant_id],
                )
                == [(20,)]
            ),
        )
        for _ in range(3):
            answer = desk.client.post("/api/v1/recommend", json={"userId": "u", "count": 1}, headers=shop.key)
            assert answer.status_code == 200, answer.text
            assert desk.client.post("/api/auth/login", json=login).status_code == 200
        twin = desk.client.post(f"{BILLING_PATH}/portal", headers={**shop.admin, "Idempotency-Key": "hanging-1"})
        assert (twin.status_code, "in flight" in twin.json()["detail"]) == (409, True)
        assert not done  # all that while the others were waiting
    for thread in threads:
        thread.join()
    assert len(done) == 20
    assert desk.sql("SELECT 1 FROM idempotency_claims WHERE tenant_id = %s", [shop.tenant_id]) == []


def test_a_claim_of_a_process_that_died_is_void_after_a_minute(desk: Desk, shop: Shop) -> None:
    shop.checkout()
    headers = {**shop.admin, "Idempotency-Key": "died"}
    first = desk.client.post(f"{BILLING_PATH}/portal", headers=headers)
    again = desk.client.post(f"{BILLING_PATH}/portal", headers=headers)
    assert (first.status_code, again.content) == (200, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    desk.sql(
        "WITH gone AS (DELETE FROM idempotency_records WHERE tenant_id = %s RETURNING tenant_id, request) "
        "INSERT INTO idempotency_claims "
        "SELECT tenant_id, request, gen_random_uuid(), now() + interval '60 s' FROM gone",
        [shop.tenant_id],
    )
    assert desk.client.post(f"{BILLING_PATH}/portal", headers=headers).status_code == 409
    desk.sql("UPDATE idempotency_claims SET claimed_until = now() WHERE tenant_id = %s", [shop.tenant_id])
    assert desk.client.post(f"{BILLING_PATH}/portal", headers=headers).status_code == 200


def test_a_call_that_stripe_did_not_answer_may_be_sent_again_with_its_key(desk: Desk, shop: Shop) -> None:
    shop.checkout()
    headers = {**shop.admin, "Idempotency-Key": "again"}
    with desk.standin.faulty(path="/v1/", status=500):
        assert desk.client.post(f"{BILLING_PATH}/portal", headers=headers).status_code == 503
    assert desk.client.post(f"{BILLING_PATH}/portal", headers=headers).status_code == 200


def test_serving_does_not_wait_for_stripe(desk: Desk, shop: Shop) -> None:
    """More calls than there are connections hang on Stripe; everybody else is answered meanwhile."""
    shop.checkout()
    hanging = 24  # a process has 16 connections of the database
    done: list[int] = []

    def hang() -> None:
        done.append(shop.ask("GET", "/invoices").status_code)

    threads = [threading.Thread(target=hang) for _ in range(hanging)]
    with desk.standin.faulty(path="/v1/", status=None, delay_seconds=8):
        for thread in threads:
            thread.start()
        time.sleep(1)
        for _ in range(5):
            body = {"userId": "u", "count": 1}
            answer = desk.client.post("/api/v1/recommend", json=body, headers=shop.key)
            assert answer.status_code == 200, answer.text
            assert shop.ask("GET", "/current").status_code == 200
            assert desk.client.get("/health/ready").status_code in (200, 503)
            body, headers = signed({"id": "evt_x", "type": "x", "created": 1, "data": {"object": {}}})
            assert desk.client.post(HOOK, content=body, headers=headers).status_code == 200
        assert not done  # all that while the others were waiting
    for thread in threads:
        thread.join()
    assert set(done) == {200}
