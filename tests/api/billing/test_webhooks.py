"""Stripe's events: verified, stored before they are handled, and handled once, in any order and after any crash."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api.app import create_app
from api.billing.events import handle_pending
from api.billing.gateway import Gateway
from api.database.engine import Database
from api.retention.repository import delete_expired_rows
from configs.api import LimitSettings
from configs.billing import BillingSettings
from configs.retention import RetentionSettings
from tests.fixtures.desk import BILLING_PATH, HOOK, Desk, Shop
from tests.fixtures.live import api_process, served
from tests.fixtures.platform import wait_until
from tests.fixtures.standin import signed

BILLING = ("subscriptions", "billing_audit", "usage_cycles", "billing_settings", "overage_charges")


def event(id_: str, type_: str = "customer.subscription.updated", **about: Any) -> dict[str, Any]:
    found = {"id": "sub_1", "object": "subscription", **about}
    return {"id": id_, "object": "event", "type": type_, "created": 1_736_937_000, "data": {"object": found}}


def send(desk: Desk, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return desk.client.post(HOOK, content=body, headers=headers)


def stored(desk: Desk, id_: str) -> Any:
    """Tenant, whether it was handled, attempts and error of an event."""
    rows = desk.sql("SELECT tenant_id, handled_at IS NOT NULL, attempts, error FROM stripe_events WHERE id = %s", [id_])
    return rows[0] if rows else None


def everything_of(desk: Desk, shop: Shop) -> Any:
    return [desk.sql(f"SELECT * FROM {table} WHERE tenant_id = %s", [shop.tenant_id]) for table in BILLING]


async def in_process(desk: Desk, work: Any) -> Any:
    """What `work` answers that takes a database and a gateway, as another process would have them."""
    database, gateway = Database(desk.database_url, pool_min=1), Gateway(desk.configuration.billing)
    await database.open()
    try:
        return await work(database, gateway)
    finally:
        await gateway.close()
        await database.close()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"age": 299}, 200),
        ({"age": 302}, 400),
        ({"secret": "whsec_another"}, 400),
    ],
    ids=str,
)
def test_what_is_not_signed_within_five_minutes_is_refused(change: Any, status: int, desk: Desk) -> None:
    id_ = f"evt_signed_{len(str(change))}_{status}"
    answer = send(desk, *signed(event(id_, "charge.updated"), **change))
    assert answer.status_code == status, answer.text
    assert (stored(desk, id_) is not None) == (status == 200)
    if status == 400:
        assert answer.headers["content-type"] == "application/problem+json"


def test_while_a_secret_is_replaced_both_are_accepted(desk: Desk) -> None:
    for secrets, statuses in (("whsec_old,whsec_new", (200, 200, 400)), ("whsec_new", (400, 200, 400))):
        billing = desk.configuration.billing.model_copy(update={"webhook_secret": SecretStr(secrets)})
        with served(create_app(replace(desk.configuration, billing=billing))) as url:
            for secret, status in zip(("whsec_old", "whsec_new", "whsec_old,whsec_new"), statuses, strict=True):
                body, headers = signed(event(f"evt_{len(secrets)}_{secret}", "charge.updated"), secret=secret)
                answer = httpx.post(f"{url}{HOOK}", content=body, headers=headers, timeout=60)
                assert answer.status_code == status, (secrets, secret, answer.text)


@pytest.mark.parametrize("given", ["", " , "])
def test_a_setting_without_a_secret_in_it_accepts_nothing(given: str) -> None:
    assert BillingSettings(webhook_secret=given).webhook_secrets == ()


@pytest.mark.parametrize("header", [None, "", "t=1", "v1=x", "t=x,v1=y", "t=1736937000,v1=00", "é"], ids=str)
def test_a_header_that_is_no_signature_is_refused(header: str | None, desk: Desk) -> None:
    body, _ = signed(event("evt_headless"))
    headers = {} if header is None else {"Stripe-Signature": header.encode("latin-1")}
    assert send(desk, body, headers).status_code == 400


def test_a_body_that_was_changed_is_refused(desk: Desk) -> None:
    body, headers = signed(event("evt_changed"))
    assert send(desk, body.replace(b"sub_1", b"sub_2"), headers).status_code == 400


@pytest.mark.parametrize("body", [{}, [], {"id": "evt_odd"}, event("evt_odd") | {"created": "now"}, "text"], ids=str)
def test_what_is_signed_and_no_event_is_refused(body: Any, desk: Desk) -> None:
    assert send(desk, *signed(body)).status_code == 400


def test_unknown_types_and_unknown_customers_are_taken(desk: Desk) -> None:
    for id_, type_, about in (
        ("evt_unknown_type", "radar.early_fraud_warning.created", {}),
        ("evt_unknown_customer", "customer.subscription.updated", {"customer": "cus_of_somebody_else"}),
        ("evt_no_customer", "invoice.paid", {}),
        ("evt_unknown_tenant", "checkout.session.completed", {"customer": "cus_x", "client_reference_id": "nobody"}),
    ):
        assert send(desk, *signed(event(id_, type_, **about))).status_code == 200
        assert stored(desk, id_)[:2] == (None, True)


def test_nothing_about_people_is_kept(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    kept = desk.sql("SELECT payload FROM stripe_events WHERE tenant_id = %s", [shop.tenant_id])
    assert len(kept) > 3
    assert all(payload.keys() == {"object", "customer", "tenant"} for (payload,) in kept)
    assert "person@example.com" not in json.dumps([payload for (payload,) in kept])


def test_a_replay_changes_nothing(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    before, events = everything_of(desk, shop), desk.sql("SELECT * FROM stripe_events ORDER BY id")
    desk.standin.redeliver()
    desk.standin.flush()
    assert everything_of(desk, shop) == before
    assert desk.sql("SELECT * FROM stripe_events ORDER BY id") == events


@pytest.mark.parametrize("manner", [{"order": "reversed"}, {"order": "shuffled", "duplicates": 2, "concurrency": 4}])
def test_the_order_of_events_does_not_matter(manner: dict[str, Any], desk: Desk, shop: Shop) -> None:
    """Paid, changed and canceled at Stripe before a single event comes: then all come, in the worst of orders."""
    desk.standin.webhooks(paused=True)
    try:
        assert desk.standin.pay(shop.checkout()).status_code == 303
        library = desk.standin.library
        (subscription,) = library.subscriptions.list({"customer": shop.customer}).data
        growth = library.prices.list({"lookup_keys": ["plan-growth-monthly"]}).data[0].id
        item = subscription["items"].data[0].id
        library.subscriptions.update(subscription.id, {"items": [{"id": item, "price": growth}]})
        library.subscriptions.cancel(subscription.id)
        desk.standin.webhooks(**manner)
    finally:
        desk.standin.webhooks(paused=False)
        desk.standin.flush()
        desk.standin.webhooks(order="sent", duplicates=0, concurrency=1)
    assert shop.status() == ("free", "canceled")
    (entry,) = shop.audit("subscription")
    assert (entry["actor"], entry["before"]) == ("stripe", None)
    assert (entry["after"]["planId"], entry["after"]["status"]) == ("plan-growth", "canceled")


def test_an_older_answer_of_stripe_does_not_undo_a_newer_one(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    desk.sql(
        "UPDATE subscriptions SET status = 'past_due', as_of = now() + interval '1 hour' WHERE tenant_id = %s",
        [shop.tenant_id],
    )
    assert send(desk, *signed(event("evt_older", customer=shop.customer))).status_code == 200
    assert stored(desk, "evt_older")[:2] == (shop.tenant_id, True)
    assert shop.row("status") == "past_due"


def test_two_processes_handle_one_event_once(desk: Desk, shop: Shop, tmp_path: Path) -> None:
    desk.standin.webhooks(paused=True)
    try:
        assert desk.standin.pay(shop.checkout()).status_code == 303
        (about,) = (
            each
            for each in desk.standin.events("customer.subscription.created")
            if each["data"]["object"]["customer"] == shop.customer
        )
        with (
            api_process(desk.database_url, tmp_path, **desk.standin.environment) as other,
            ThreadPoolExecutor(8) as many,
        ):
            targets = [f"{url}{HOOK}" for url in (desk.client.base_url, other.url) for _ in range(4)]
            body, headers = signed(about)
            answers = list(many.map(lambda url: httpx.post(url, content=body, headers=headers, timeout=30), targets))
            # A duplicate is answered while the first is still at it; nobody has to wait for another.
            wait_until("the event is handled", lambda: stored(desk, about["id"])[1])
    finally:
        desk.standin.webhooks(paused=False)
    assert [answer.status_code for answer in answers] == [200] * 8
    assert stored(desk, about["id"]) == (shop.tenant_id, True, 1, None)
    assert len(shop.audit("subscription")) == 1
    desk.standin.flush()


def test_an_event_that_was_kept_and_not_handled_is_handled_on_restart(desk: Desk, shop: Shop, tmp_path: Path) -> None:
    """As a process leaves it that is killed between the two."""
    desk.standin.webhooks(paused=True, drop=["customer.subscription.created", "checkout.session.completed"])
    try:
        assert desk.standin.pay(shop.checkout()).status_code == 303
        customer = shop.customer
        desk.sql(
            "INSERT INTO stripe_events (id, type, created, payload, attempts, retry_at) "
            "VALUES ('evt_left', 'customer.subscription.created', now(), %s, 1, now() + interval '2 seconds')",
            [json.dumps({"object": "sub_1", "customer": customer, "tenant": None})],
        )
        wait_until("the event is handled", lambda: stored(desk, "evt_left")[1])
        assert stored(desk, "evt_left") == (shop.tenant_id, True, 2, None)
        assert shop.status() == ("plan-starter", "active")
    finally:
        desk.standin.webhooks(paused=False, drop=[])
        desk.standin.flush()


def test_a_killed_process_leaves_its_events_to_the_next(desk: Desk, shop: Shop, tmp_path: Path) -> None:
    """Killed while it waits for Stripe's answer: what it had kept is handled by the process after it."""
    desk.standin.webhooks(paused=True)
    try:
        assert desk.standin.pay(shop.checkout()).status_code == 303
        body, headers = signed(event("evt_killed", customer=shop.customer))
        settings = {**desk.standin.environment, "BILLING_RETRY_SECONDS": "1"}
        with (
            api_process(desk.database_url, tmp_path, **settings) as doomed,
            ThreadPoolExecutor(1) as one,
            desk.standin.faulty(method="GET", path="/v1/subscriptions", status=None, delay_seconds=4),
        ):
            call = one.submit(httpx.post, f"{doomed.url}{HOOK}", content=body, headers=headers, timeout=30)
            wait_until("the event is kept", lambda: stored(desk, "evt_killed") is not None)
            doomed.process.kill()
            assert isinstance(call.exception(timeout=20), httpx.TransportError)
        wait_until("the event is handled", lambda: stored(desk, "evt_killed")[1])
        assert shop.status() == ("plan-starter", "active")
    finally:
        desk.standin.webhooks(paused=False)
        desk.standin.flush()


def test_while_stripe_is_away_events_are_kept_and_handled_later(desk: Desk, shop: Shop) -> None:
    url = shop.checkout()
    with desk.standin.faulty(method="GET", path="/v1/subscriptions", status=500):
        assert desk.standin.pay(url).status_code == 303
        desk.standin.flush()  # every event is taken
        assert shop.status() == ("free", "none")
        waiting = desk.sql("SELECT error FROM stripe_events WHERE handled_at IS NULL")
        assert waiting
    wait_until("they are handled", lambda: shop.status() == ("plan-starter", "active"))


def test_a_tenant_whose_row_was_lost_gets_what_it_paid_for(desk: Desk, shop: Shop) -> None:
    url = shop.checkout()
    desk.sql("DELETE FROM subscriptions WHERE tenant_id = %s", [shop.tenant_id])
    assert desk.standin.pay(url).status_code == 303
    desk.standin.flush()
    assert shop.status() == ("plan-starter", "active")


@pytest.mark.parametrize("copied", [False, True])
def test_a_checkout_that_was_made_elsewhere_subscribes_nobody(copied: bool, desk: Desk, shop: Shop) -> None:
    """A payment link takes any `client_reference_id`; even with the mark of a checkout of ours, it is another's."""
    library = desk.standin.library
    other = desk.shop()
    other.checkout("plan-growth")
    marks = library.checkout.sessions.list({"customer": other.customer}).data[0].metadata.to_dict() if copied else {}
    metadata = {**marks, "tenant": shop.tenant_id}
    session = library.checkout.sessions.create(
        {
            "mode": "subscription",
            "customer": library.customers.create({"metadata": metadata}).id,
            "client_reference_id": shop.tenant_id,
            "line_items": [
                {"price": library.prices.list({"lookup_keys": ["plan-growth-monthly"]}).data[0].id, "quantity": 1}
            ],
            "metadata": metadata,
            "subscription_data": {"metadata": metadata},
            "success_url": "http://shop.example/done",
        }
    )
    assert desk.standin.pay(session.url).status_code == 303
    desk.standin.flush()
    assert shop.status() == ("free", "none")
    assert desk.sql("SELECT 1 FROM subscriptions WHERE tenant_id = %s", [shop.tenant_id]) == []
    shop.subscribe("plan-starter")  # nothing is in the way of its own
    assert shop.status() == ("plan-starter", "active")


def test_nobody_elses_customer_is_taken_for_a_tenants(desk: Desk, shop: Shop) -> None:
    """Another installation on the same account may have a tenant of this name."""
    shop.checkout()
    library = desk.standin.library
    stranger = library.customers.create({"payment_method": "pm_card_visa", "metadata": {"tenant": shop.tenant_id}})
    price = library.prices.list({"lookup_keys": ["plan-growth-monthly"]}).data[0].id
    library.subscriptions.create(
        {"customer": stranger.id, "items": [{"price": price}], "metadata": {"tenant": shop.tenant_id}}
    )
    desk.standin.flush()
    assert shop.status() == ("free", "none")


def test_events_of_a_deleted_tenant_are_taken(desk: Desk, shop: Shop) -> None:
    shop.subscribe()
    customer = shop.customer
    desk.sql("UPDATE tenants SET deleted_at = now() WHERE id = %s", [shop.tenant_id])
    assert send(desk, *signed(event("evt_late", customer=customer))).status_code == 200
    assert stored(desk, "evt_late")[:2] == (None, True)


def test_only_what_is_not_signed_counts_for_the_limit(desk: Desk) -> None:
    limits = LimitSettings(per_ip=3, redis_url=None)
    with served(create_app(replace(desk.configuration, limits=limits))) as url, httpx.Client(base_url=url) as client:
        unsigned, (good, headers) = b"{}", signed(event("evt_uncounted", "charge.updated"))
        for _ in range(6):
            answer = client.post(HOOK, content=good, headers=headers)
            assert answer.status_code == 200
            assert "x-ratelimit-limit" not in answer.headers
        answers = [client.post(HOOK, content=unsigned) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [400, 400, 400, 429]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
        assert client.post(HOOK, content=good, headers=headers).status_code == 200  # an exhausted address blocks nobody
        assert client.get(f"{BILLING_PATH}/plans").status_code == 429


def test_an_event_waits_longer_each_time(desk: Desk, shop: Shop) -> None:
    shop.checkout()
    desk.sql(
        "INSERT INTO stripe_events (id, type, created, payload, attempts, retry_at) "
        "VALUES ('evt_slow', 'invoice.paid', now(), %s, 4, now() - interval '1 second')",
        [json.dumps({"object": "in_1", "customer": shop.customer, "tenant": None})],
    )
    with desk.standin.faulty(method="GET", path="/v1/subscriptions", status=500):
        wait_until("it is tried", lambda: stored(desk, "evt_slow")[2] == 5)
        ((rest,),) = desk.sql(
            "SELECT extract(epoch FROM retry_at - now())::float8 FROM stripe_events WHERE id = 'evt_slow'"
        )
    assert 0.5 * 2**4 - 7 < rest <= 0.5 * 2**4
    desk.sql("UPDATE stripe_events SET retry_at = now() WHERE id = 'evt_slow'")
    wait_until("it is handled", lambda: stored(desk, "evt_slow")[1])


def test_several_processes_share_what_waits(desk: Desk, shop: Shop) -> None:
    """Three of them, the API itself among them; each event is attempted by one."""
    shop.checkout()
    for number in range(12):
        desk.sql(
            "INSERT INTO stripe_events (id, type, created, payload) VALUES (%s, 'invoice.paid', now(), %s)",
            [f"evt_shared_{number}", json.dumps({"object": "in_1", "customer": shop.customer, "tenant": None})],
        )

    async def both() -> list[int]:
        return list(await asyncio.gather(*(in_process(desk, handle_pending) for _ in range(2))))

    asyncio.run(both())
    wait_until(
        "all are handled",
        lambda: not desk.sql("SELECT FROM stripe_events WHERE starts_with(id, 'evt_shared_') AND handled_at IS NULL"),
    )
    assert desk.sql("SELECT DISTINCT attempts FROM stripe_events WHERE starts_with(id, 'evt_shared_')") == [(1,)]


def test_what_was_handled_long_ago_is_forgotten(desk: Desk) -> None:
    assert send(desk, *signed(event("evt_old", "charge.updated"))).status_code == 200
    assert send(desk, *signed(event("evt_new", "charge.updated"))).status_code == 200
    desk.sql("UPDATE stripe_events SET handled_at = now() - interval '91 days' WHERE id = 'evt_old'")
    asyncio.run(in_process(desk, lambda database, _: delete_expired_rows(database.pool, RetentionSettings())))
    assert (stored(desk, "evt_old"), stored(desk, "evt_new") is not None) == (None, True)
