"""Every object of the stand-in has the fields, and the types, that the `stripe` library declares for it.

The declarations are read here a second time, more strictly than where objects are made: down to every nested object.
"""

from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, ForwardRef, Literal, TypeVar, Union, get_args, get_origin

import stripe
from stripe import ListObject, StripeObject
from stripe._stripe_object import UntypedStripeObject

from tests.fixtures.stripe.running import StandIn, seed

# What an answer may leave out although the class declares it: it is sent when it is asked for, or only of deleted ones.
SENT_SOMETIMES = {"deleted", "line_items", "payments", "subscriptions", "sources", "tax_ids", "cash_balance"}
SENT_SOMETIMES |= {"invoice_credit_balance", "client_secret"}


def problems(value: Any, declared: Any, path: str) -> list[str]:
    """Where a value is not what an annotation allows."""
    origin, arguments = get_origin(declared), get_args(declared)
    if declared is Any or isinstance(declared, TypeVar):
        return []
    if origin in {Union, UnionType}:
        found = [problems(value, each, path) for each in arguments]
        return [] if [] in found else min(found, key=len)
    if origin is Literal:
        return [] if value in arguments else [f"{path}: {value!r} is none of {arguments}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{path}: {type(value).__name__} instead of a list"]
        return [
            each for position, one in enumerate(value) for each in problems(one, arguments[0], f"{path}[{position}]")
        ]
    if isinstance(declared, ForwardRef | str):
        name = declared if isinstance(declared, str) else declared.__forward_arg__
        known = getattr(stripe, name, None)
        return problems(value, known, path) if known else [f"{path}: of an unknown class {name}"]
    if origin is ListObject:
        inner = [problems(each, arguments[0], f"{path}.data") for each in value.data]
        return [each for one in inner for each in one]
    if origin is UntypedStripeObject:  # a name for the type checker, of whatever object is there
        return wrong_fields(value, path) if isinstance(value, StripeObject) else [f"{path}: not an object"]
    expected = origin or declared
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        return [f"{path}: {type(value).__name__} instead of {expected}"]
    return wrong_fields(value, path) if isinstance(value, StripeObject) and origin is None else []


def wrong_fields(value: StripeObject, path: str) -> list[str]:
    """The fields of an object that are missing, unknown or of another type than its class says."""
    declared = {
        name: each
        for name, each in type(value).__annotations__.items()
        if not name.startswith("_") and not name.isupper()
    }
    given = value._data
    if not declared or isinstance(value, ListObject):
        return []
    found = [f"{path}.{name}: unknown" for name in given.keys() - declared.keys()]
    for name, annotation in declared.items():
        if name in given:
            found += problems(given[name], annotation, f"{path}.{name}")
        elif name not in SENT_SOMETIMES and NoneType not in get_args(annotation):
            found.append(f"{path}.{name}: missing")
    return found


def test_every_object_is_what_the_library_declares(shared: StandIn) -> None:
    client = shared.client.v1
    price = seed(shared.client, "shapes-monthly", 4_900)
    dearer = seed(shared.client, "shapes-dearer-monthly", 14_900)
    customer = client.customers.create({"email": "a@b.example", "name": "Shop", "metadata": {"tenant": "acme"}})
    session = client.checkout.sessions.create(
        {
            "mode": "subscription",
            "customer": customer.id,
            "line_items": [{"price": price.id, "quantity": 1}],
            "success_url": "http://shop.example",
            "expand": ["line_items"],
        }
    )
    shared.post_form(str(session.url), action="pay", card="4242424242424242", email="a@b.example")
    subscription = client.subscriptions.list({"customer": customer.id}).data[0]
    item: Any = {"id": subscription["items"].data[0].id, "price": dearer.id}
    client.subscriptions.update(subscription.id, {"items": [item], "proration_behavior": "always_invoice"})
    client.invoice_items.create({"customer": customer.id, "amount": 250, "currency": "usd", "metadata": {"cycle": "1"}})
    client.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    portal = client.billing_portal.sessions.create({"customer": customer.id, "return_url": "http://shop.example"})
    objects: list[StripeObject] = [
        *client.products.list().data,
        *client.prices.list({"expand": ["data.product"]}).data,
        *(client.customers.retrieve(customer.id), portal, session, client.checkout.sessions.retrieve(session.id)),
        *client.payment_methods.list({"customer": customer.id}).data,
        client.subscriptions.retrieve(subscription.id, {"expand": ["latest_invoice", "customer"]}),
        *client.invoices.list({"customer": customer.id}).data,
        *client.invoice_items.list({"customer": customer.id}).data,
        *client.events.list({"limit": 100}).data,
    ]
    kinds = {type(each).__name__ for each in objects}
    assert kinds >= {
        "Product",
        "Price",
        "Customer",
        "Session",
        "PaymentMethod",
        "Subscription",
        "Invoice",
        "InvoiceItem",
    }
    assert [each for one in objects for each in wrong_fields(one, type(one).__name__)] == []
    assert isinstance(objects[-1], stripe.Event)
    assert client.prices.retrieve(price.id).unit_amount_decimal == Decimal(4_900)


def test_objects_inside_events_are_the_same_as_those_answered(shared: StandIn) -> None:
    customer = shared.client.v1.customers.create({"email": "event@b.example"})
    (event,) = [
        each
        for each in shared.client.v1.events.list({"type": "customer.created", "limit": 100}).data
        if each.data.object["id"] == customer.id
    ]
    assert event.data.object.to_dict() == customer.to_dict()
    assert event.api_version == stripe.api_version
