"""Requests to the stand-in: keys, versions, parameters, idempotency, pages, expansion, and failures on demand."""

from typing import Any

import httpx
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from stripe._encode import _api_encode

from tests.fixtures.stripe.forms import decode
from tests.fixtures.stripe.running import API_KEY, StandIn, seed


def asked(shared: StandIn, method: str, path: str, **more: Any) -> httpx.Response:
    """A request without the library."""
    headers = {"authorization": f"Bearer {API_KEY}", **more.pop("headers", {})}
    return httpx.request(method, f"{shared.url}{path}", headers=headers, **more)


names = st.text("abc_", min_size=1, max_size=3)
leaves = st.text("aé漢 &=[]%+;#", max_size=5)
lists = st.lists(leaves, min_size=1, max_size=3)
nested = leaves | lists | st.dictionaries(names, leaves | lists, min_size=1, max_size=3)


@given(st.dictionaries(names, nested | st.lists(st.dictionaries(names, leaves, min_size=1), min_size=1), max_size=3))
def test_forms_are_read_as_the_library_writes_them(params: dict[str, Any]) -> None:
    def with_positions(value: Any) -> Any:
        if isinstance(value, list):
            return {str(position): with_positions(each) for position, each in enumerate(value)}
        return {name: with_positions(each) for name, each in value.items()} if isinstance(value, dict) else value

    encoded = str(httpx.QueryParams(list(_api_encode(params))))
    assert decode(encoded) == with_positions(params)


def test_another_key_is_refused(shared: StandIn) -> None:
    stranger = stripe.StripeClient("sk_test_of_another", base_addresses={"api": shared.url})
    with pytest.raises(stripe.AuthenticationError, match="Invalid API Key provided"):
        stranger.v1.customers.list()
    assert httpx.post(f"{shared.url}/_test/clock", json={}).status_code == 401


def test_another_version_is_refused(shared: StandIn) -> None:
    old = stripe.StripeClient(API_KEY, stripe_version="2017-08-15", base_addresses={"api": shared.url})
    with pytest.raises(stripe.InvalidRequestError, match="speaks the version"):
        old.v1.customers.list()


def test_what_it_does_not_know_it_says(shared: StandIn) -> None:
    client = shared.client.v1
    misspelt: Any = {"emial": "a@b.example"}
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        client.customers.create(misspelt)
    assert (unknown.value.http_status, unknown.value.code, unknown.value.param) == (400, "parameter_unknown", "emial")
    far_away: Any = {"address": {"planet": "Mars"}}
    with pytest.raises(stripe.InvalidRequestError) as within:
        client.customers.create(far_away)
    assert within.value.param == "address[planet]"
    with pytest.raises(stripe.InvalidRequestError) as missing:
        client.products.create({})  # type: ignore[typeddict-item]
    assert (missing.value.code, missing.value.param) == ("parameter_missing", "name")
    with pytest.raises(stripe.InvalidRequestError) as nothing:
        client.subscriptions.retrieve("sub_nothing")
    assert (nothing.value.http_status, nothing.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError) as elsewhere:
        client.invoice_items.create({"customer": "cus_nothing", "amount": 1, "currency": "usd"})
    assert (elsewhere.value.http_status, elsewhere.value.param) == (400, "customer")
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        client.refunds.list()
    with pytest.raises(stripe.InvalidRequestError, match="does not support checkout in mode payment"):
        client.checkout.sessions.create({"mode": "payment", "success_url": "http://shop.example"})
    number = asked(shared, "POST", "/v1/invoiceitems", data={"amount": "12.5"})
    assert (number.status_code, number.json()["error"]["code"]) == (400, "parameter_invalid_integer")


def test_request_that_fails_half_way_leaves_nothing(shared: StandIn) -> None:
    """The product of `product_data` would be made before the lookup key is found to be taken."""
    seed(shared.client, "taken-monthly", 100)
    before = len(shared.client.v1.products.list({"limit": 100}).data)
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        shared.client.v1.prices.create(
            {"currency": "usd", "unit_amount": 1, "lookup_key": "taken-monthly", "product_data": {"name": "New"}}
        )
    assert len(shared.client.v1.products.list({"limit": 100}).data) == before


def test_lookup_key_moves_to_another_price_where_that_is_asked(shared: StandIn) -> None:
    old = seed(shared.client, "moving-monthly", 100)
    new = shared.client.v1.prices.create(
        {
            "currency": "usd",
            "product": str(old.product),
            "unit_amount": 200,
            "recurring": {"interval": "month"},
            "lookup_key": "moving-monthly",
            "transfer_lookup_key": True,
        }
    )
    assert [each.id for each in shared.client.v1.prices.list({"lookup_keys": ["moving-monthly"]}).data] == [new.id]
    assert shared.client.v1.prices.retrieve(old.id).lookup_key is None


def test_same_key_gives_the_first_answer_and_another_body_is_an_error(shared: StandIn) -> None:
    headers = {"idempotency-key": "one-customer"}
    first = asked(shared, "POST", "/v1/customers", data={"name": "once"}, headers=headers)
    again = asked(shared, "POST", "/v1/customers", data={"name": "once"}, headers=headers)
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = asked(shared, "POST", "/v1/customers", data={"name": "other"}, headers=headers)
    assert (other.status_code, other.json()["error"]["type"]) == (400, "idempotency_error")
    event = shared.client.v1.events.list({"type": "customer.created"}).data[0]
    assert event.request is not None
    assert event.request.idempotency_key == "one-customer"


def test_invalid_request_does_not_use_up_its_key(shared: StandIn) -> None:
    headers = {"idempotency-key": "corrected"}
    assert asked(shared, "POST", "/v1/products", data={}, headers=headers).status_code == 400
    assert asked(shared, "POST", "/v1/products", data={"name": "corrected"}, headers=headers).status_code == 200


def test_key_is_forgotten_after_a_day_of_its_clock(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:

        def create() -> str:
            made: stripe.Customer = scene.client.v1.customers.create({"name": "n"}, {"idempotency_key": "daily"})
            return made.id

        first = create()
        scene.running.advance(86_399)
        assert create() == first
        scene.running.advance(1)
        assert create() != first


def test_pages_go_through_everything_once_newest_first(shared: StandIn) -> None:
    client = shared.client.v1
    made = [client.customers.create({"email": "pages@b.example"}).id for _ in range(7)]
    page = client.customers.list({"email": "pages@b.example", "limit": 3})
    assert page.has_more
    assert [each.id for each in page.auto_paging_iter()] == made[::-1]
    before = client.customers.list({"email": "pages@b.example", "limit": 2, "ending_before": made[3]})
    assert [each.id for each in before.data] == [made[5], made[4]]
    assert before.has_more
    for limit in (0, 101):
        with pytest.raises(stripe.InvalidRequestError):
            client.customers.list({"limit": limit})


def test_expansion_reaches_nested_objects_and_refuses_the_rest(shared: StandIn) -> None:
    price = seed(shared.client, "expanded-monthly", 100)
    found: Any = shared.client.v1.prices.list({"lookup_keys": ["expanded-monthly"], "expand": ["data.product"]}).data[0]
    assert (found.id, found.product.name) == (price.id, "expanded")
    for path in ("colour", "currency", "recurring.interval"):
        with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
            shared.client.v1.prices.retrieve(price.id, {"expand": [path]})


def test_failures_come_as_often_as_they_were_asked_for(shared: StandIn) -> None:
    shared.control("faults", status=500, path="/v1/products", method="POST", times=2)
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            shared.client.v1.products.create({"name": "late"})
    assert shared.client.v1.products.create({"name": "late"}).name == "late"
    assert [each.name for each in shared.client.v1.products.list().data].count("late") == 1


def test_lost_answer_had_its_effect_and_comes_with_the_same_key(shared: StandIn) -> None:
    shared.control("faults", status=503, path="/v1/products", method="POST", after=True, times=1)
    with pytest.raises(stripe.APIError):
        shared.client.v1.products.create({"name": "lost"}, {"idempotency_key": "lost"})
    found = shared.client.v1.products.create({"name": "lost"}, {"idempotency_key": "lost"})
    assert [each.id for each in shared.client.v1.products.list().data if each.name == "lost"] == [found.id]


def test_slow_answers_are_slow_for_that_path_alone(shared: StandIn) -> None:
    shared.control("faults", status=None, delay_seconds=5, path="/v1/prices")
    with pytest.raises(httpx.ReadTimeout):
        asked(shared, "GET", "/v1/prices", timeout=0.3)
    assert asked(shared, "GET", "/v1/products", timeout=5).status_code == 200
    shared.calm()
    assert asked(shared, "GET", "/v1/prices", timeout=5).status_code == 200
