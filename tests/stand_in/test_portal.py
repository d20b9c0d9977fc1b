"""The customer portal, button by button."""

from typing import Any

import httpx
import pytest
import stripe


@pytest.fixture
def portal(scene_at: Any) -> Any:
    """A scene with a subscription to the starter plan, and the address of its portal."""
    with scene_at("2026-03-01T00:00:00Z") as scene:
        growth = scene.price("plan-growth-monthly", 14_900)
        subscription = scene.subscribed(scene.price())
        session = scene.client.v1.billing_portal.sessions.create(
            {"customer": str(subscription.customer), "return_url": "http://shop.example/?a=1&b=2"}
        )
        yield scene, session.url, subscription, growth


def test_page_shows_plan_card_and_invoices(portal: Any) -> None:
    scene, url, subscription, _ = portal
    page = httpx.get(url).text
    for shown in (
        "plan-starter, 49.00 USD per month",
        "Visa ending in 4242",
        "1 Apr 2026",
        "0001",
        "buyer@shop.example",
    ):
        assert shown in page
    assert 'href="http://shop.example/?a=1&amp;b=2"' in page
    invoice = scene.client.v1.invoices.retrieve(subscription.latest_invoice)
    assert "Amount due" in httpx.get(invoice.hosted_invoice_url).text
    assert httpx.get(f"{scene.running.url}/p/session/bps_nothing").status_code == 404
    assert httpx.get(f"{scene.running.url}/i/in_nothing").status_code == 404


def test_plan_changes_and_another_customers_invoice_cannot_be_paid(portal: Any) -> None:
    scene, url, subscription, growth = portal
    assert "Your plan has been changed." in scene.running.post_form(url, action="plan", price=growth.id).text
    assert scene.now(subscription)["items"].data[0].price.id == growth.id
    other = scene.subscribed(growth)
    assert scene.running.post_form(url, action="pay", invoice=other.latest_invoice).status_code == 402
    assert scene.running.post_form(url, action="refund").status_code == 402


def test_cancellation_plans_a_moment_as_flexible_billing_does(portal: Any) -> None:
    """`cancel_at` says when; `cancel_at_period_end` stays false, for which applications must be prepared."""
    scene, url, subscription, _ = portal
    assert "ends with its period" in scene.running.post_form(url, action="cancel").text
    planned = scene.now(subscription)
    (item,) = planned["items"].data
    assert (planned.cancel_at, planned.cancel_at_period_end) == (item.current_period_end, False)
    assert "It ends on 1 Apr 2026." in httpx.get(url).text
    scene.running.post_form(url, action="renew")
    assert scene.now(subscription).cancel_at is None
    scene.running.post_form(url, action="cancel")
    scene.running.advance_to("2026-04-01T00:00:00Z")
    assert scene.now(subscription).status == "canceled"
    assert "No subscription." in httpx.get(url).text


def test_failed_invoice_is_paid_with_another_card(portal: Any) -> None:
    scene, url, subscription, _ = portal
    assert "card has been changed" in scene.running.post_form(url, action="card", card="4000000000000341").text
    assert scene.running.post_form(url, action="card", card="4000000000000002").status_code == 402
    scene.running.advance_to("2026-04-02T00:00:00Z")
    due = scene.now(subscription)
    assert due.status == "past_due"
    refused = scene.running.post_form(url, action="pay", invoice=due.latest_invoice)
    assert (refused.status_code, "Your card was declined." in refused.text) == (402, True)
    scene.running.post_form(url, action="card", card="4242424242424242")
    assert "the invoice is paid" in scene.running.post_form(url, action="pay", invoice=due.latest_invoice).text
    assert scene.now(subscription).status == "active"


def test_names_of_customers_are_text_not_markup(portal: Any) -> None:
    scene, url, subscription, _ = portal
    scene.client.v1.customers.update(subscription.customer, {"name": "<script>alert(1)</script>"})
    page = httpx.get(url).text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    with pytest.raises(stripe.InvalidRequestError):
        scene.client.v1.billing_portal.sessions.create({"customer": "cus_nothing"})
