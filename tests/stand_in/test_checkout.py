"""From a plan's price to a paid subscription, by an application and a customer."""

from typing import Any

import httpx
import pytest
import stripe

from tests.fixtures.stripe.running import StandIn, seed


def open_session(shared: StandIn, lookup_key: str) -> stripe.checkout.Session:
    client = shared.client
    seed(client, lookup_key, 4_900)
    price = client.v1.prices.list({"lookup_keys": [lookup_key]}).data[0]
    customer = client.v1.customers.create({"email": "buyer@shop.example", "name": "<b>Buyer</b>"})
    return client.v1.checkout.sessions.create(
        {
            "mode": "subscription",
            "customer": customer.id,
            "client_reference_id": "acme",
            "line_items": [{"price": price.id, "quantity": 1}],
            "metadata": {"tenant": "acme"},
            "subscription_data": {"metadata": {"tenant": "acme"}},
            "success_url": "http://shop.example/done?session={CHECKOUT_SESSION_ID}",
            "cancel_url": "http://shop.example/plans",
        }
    )


def test_paying_makes_an_active_subscription_and_leads_back(shared: StandIn) -> None:
    session = open_session(shared, "paying-monthly")
    assert session.url is not None
    page = httpx.get(session.url)
    assert page.status_code == 200
    assert "49.00 USD" in page.text
    answer = shared.post_form(session.url, action="pay", card="4242424242424242", email="buyer@shop.example")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"http://shop.example/done?session={session.id}"
    done = shared.client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription", "invoice"]})
    assert (done.status, done.payment_status, done.client_reference_id) == ("complete", "paid", "acme")
    subscription: Any = done.subscription
    assert (subscription.status, subscription.customer) == ("active", session.customer)
    assert subscription.metadata.to_dict() == {"tenant": "acme"}
    invoice: Any = done.invoice
    assert (invoice.status, invoice.amount_due, invoice.amount_paid) == ("paid", 4_900, 4_900)
    assert invoice.parent.subscription_details.subscription == subscription.id
    assert subscription.latest_invoice == invoice.id


def test_refused_card_leaves_the_session_open_and_sells_nothing(shared: StandIn) -> None:
    session = open_session(shared, "refused-monthly")
    assert session.url is not None
    for card in ("4000000000000002", "4000000000000341", "4000000000009995"):
        answer = shared.post_form(session.url, action="pay", card=card, email="buyer@shop.example")
        assert answer.status_code == 402
        assert "Your card was declined." in answer.text
    client = shared.client
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
    assert client.v1.subscriptions.list({"customer": str(session.customer), "status": "all"}).data == []
    assert client.v1.payment_methods.list({"customer": str(session.customer)}).data == []


def test_cancelling_leads_back_and_the_session_stays_open(shared: StandIn) -> None:
    session = open_session(shared, "cancelling-monthly")
    answer = shared.post_form(str(session.url), action="cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, "http://shop.example/plans")
    assert shared.client.v1.checkout.sessions.retrieve(session.id).status == "open"


def test_completed_or_expired_session_cannot_be_paid_again(shared: StandIn) -> None:
    paid, expired = open_session(shared, "twice-monthly"), open_session(shared, "expired-monthly")
    url = str(paid.url)
    assert shared.post_form(url, action="pay", card="4242424242424242", email="a@b.example").status_code == 303
    assert shared.client.v1.checkout.sessions.expire(expired.id).status == "expired"
    for address in (url, str(expired.url)):
        answer = shared.post_form(address, action="pay", card="4242424242424242", email="a@b.example")
        assert answer.status_code == 402
        assert "not open any more" in answer.text
    with pytest.raises(stripe.InvalidRequestError, match="Only Checkout Sessions"):
        shared.client.v1.checkout.sessions.expire(paid.id)
    subscriptions = shared.client.v1.subscriptions.list({"customer": str(paid.customer), "status": "all"})
    assert len(subscriptions.data) == 1


def test_lines_are_sent_where_they_are_asked_for(shared: StandIn) -> None:
    session = open_session(shared, "lines-monthly")
    assert "line_items" not in session.to_dict()
    (line,) = shared.client.v1.checkout.sessions.line_items.list(session.id).data
    assert (line.amount_total, line.quantity, line.description) == (4_900, 1, "lines")
    expanded = shared.client.v1.checkout.sessions.retrieve(session.id, {"expand": ["line_items"]})
    assert expanded.line_items is not None
    assert expanded.line_items.data[0].id == line.id
