"""The calls to Stripe that this product makes. No other module calls Stripe's API.

Every call is asynchronous and returns the typed objects of Stripe's library. Callers wrap calls in `answering`, which
sets the time-out and translates errors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import stripe
import structlog

from api.billing.connection import StripeConnection, error_text
from api.billing.money import to_stripe
from api.billing.own_checkouts import checkout_metadata
from api.billing.problems import CustomerGone, StripeRefused
from api.billing.subscriptions import Interval, lookup_key
from api.http.schemas import rfc3339
from configs.plans import Plan

GONE = "resource_missing"
MAX_INVOICES = 100
CURRENCY = "usd"
"""The currency of the prices in `plans.yaml`."""

log = structlog.get_logger(__name__)


class Gateway(StripeConnection):
    """Stripe's customers, prices, subscriptions, checkouts and invoices."""

    async def price(self, lookup_key: str) -> stripe.Price | None:
        """The active price with this lookup key."""
        found = await self._api().prices.list_async({"lookup_keys": [lookup_key], "active": True, "limit": 1})
        return found.data[0] if found.data else None

    async def create_price(self, plan: Plan, interval: Interval) -> None:
        """Create the price of a plan under its lookup key, and the plan's product if there is none."""
        found = await self._api().products.list_async({"ids": [plan.id]})
        if not found.data:
            await self._api().products.create_async({"id": plan.id, "name": plan.name})
        units = plan.monthly_price if interval == "monthly" else plan.annual_price
        await self._api().prices.create_async(
            {
                "product": plan.id,
                "currency": CURRENCY,
                "unit_amount": to_stripe(units * 100, CURRENCY),
                "recurring": {"interval": "month" if interval == "monthly" else "year"},
                "lookup_key": lookup_key(plan.id, interval),
                "metadata": {"planId": plan.id},
            }
        )

    async def create_customer(self, tenant_id: str) -> str:
        """Create a customer and return its id. No personal data is sent; people enter theirs at Stripe."""
        params: stripe.params.CustomerCreateParams = {"name": tenant_id, "metadata": {"tenant": tenant_id}}
        return (await self._api().customers.create_async(params)).id

    async def has_customer(self, customer_id: str) -> bool:
        """False where the customer was deleted."""
        try:
            found = await self._api().customers.retrieve_async(customer_id)
        except stripe.InvalidRequestError as error:
            if error.code == GONE:
                return False
            raise
        return not getattr(found, "deleted", False)

    async def subscriptions(self, customer_id: str) -> list[stripe.Subscription]:
        """Every subscription that the customer has or had, newest first."""
        found = await self._api().subscriptions.list_async({"customer": customer_id, "status": "all", "limit": 100})
        return sorted(found.data, key=lambda subscription: subscription.created, reverse=True)

    async def cancel(self, subscription_id: str) -> None:
        """Cancel a subscription now."""
        await self._api().subscriptions.cancel_async(subscription_id)

    async def open_checkouts(self, customer_id: str) -> list[str]:
        """Ids of the customer's checkouts that could still be paid."""
        found = await self._api().checkout.sessions.list_async({"customer": customer_id, "status": "open"})
        return [session.id for session in found.data]

    async def expire_checkout(self, session_id: str) -> bool:
        """Expire a checkout, so that it cannot be paid any more. Returns False where it was just paid."""
        try:
            await self._api().checkout.sessions.expire_async(session_id)
        except stripe.InvalidRequestError as error:
            log.info("checkout not expired", error=error_text(error))
            return False
        return True

    async def create_checkout(self, customer_id: str, price_id: str, tenant_id: str) -> str:
        """The URL of a page on which the customer subscribes to the price."""
        metadata = checkout_metadata(self.webhook_secrets()[0], tenant_id, customer_id)
        session = await self._api().checkout.sessions.create_async(
            {
                "mode": "subscription",
                "customer": customer_id,
                "client_reference_id": tenant_id,
                "line_items": [{"price": price_id, "quantity": 1}],
                "metadata": metadata,
                "subscription_data": {"metadata": metadata},
                "success_url": self._back("done"),
                "cancel_url": self._back("cancelled"),
            }
        )
        if session.url is None:
            raise StripeRefused("The payment service returned a checkout without a URL")
        return session.url

    async def create_portal(self, customer_id: str) -> str:
        """The URL of a page on which the customer changes card, plan and subscription. Raises CustomerGone."""
        with _existing_customer():
            session = await self._api().billing_portal.sessions.create_async(
                {"customer": customer_id, "return_url": self.settings.return_url}
            )
        return session.url

    async def invoices(self, customer_id: str) -> list[stripe.Invoice]:
        """The newest invoices, newest first. Raises CustomerGone."""
        with _existing_customer():
            found = await self._api().invoices.list_async({"customer": customer_id, "limit": MAX_INVOICES})
        return found.data

    async def draft_invoice(self, subscription_id: str) -> str | None:
        """The id of the subscription's draft invoice, to which items can still be added."""
        found = await self._api().invoices.list_async({"subscription": subscription_id, "status": "draft", "limit": 1})
        return found.data[0].id if found.data else None

    async def find_item(self, customer_id: str, metadata: dict[str, str]) -> stripe.InvoiceItem | None:
        """The customer's invoice item with this metadata, whether or not it is on an invoice yet."""
        found = await self._api().invoice_items.list_async({"customer": customer_id, "limit": 100})
        async for item in found.auto_paging_iter():
            known: dict[str, str] = item.metadata.to_dict() if item.metadata else {}
            if metadata.items() <= known.items():
                return item
        return None

    async def add_item(
        self,
        customer_id: str,
        amount: int,
        currency: str,
        description: str,
        metadata: dict[str, str],
        *,
        subscription_id: str | None,
        draft_invoice_id: str | None,
    ) -> stripe.InvoiceItem:
        """Create an invoice item on this draft invoice, or else on the subscription's next invoice.

        amount: in the smallest unit of the currency, see `to_stripe`.
        """
        params: stripe.params.InvoiceItemCreateParams = {
            "customer": customer_id,
            "amount": amount,
            "currency": currency,
            "description": description,
            "metadata": metadata,
        }
        if draft_invoice_id is not None:
            params["invoice"] = draft_invoice_id
        elif subscription_id is not None:
            params["subscription"] = subscription_id
        key = _key(draft_invoice_id or "next", customer_id, metadata)
        return await self._api().invoice_items.create_async(params, {"idempotency_key": key})

    async def invoice_waiting_items(
        self, customer_id: str, subscription: stripe.Subscription | None, metadata: dict[str, str], *, live: bool
    ) -> None:
        """Create an invoice of the customer's pending items, where no regular invoice will include them soon."""
        params: stripe.params.InvoiceCreateParams = {
            "customer": customer_id,
            "auto_advance": True,
            "metadata": metadata,
        }
        if subscription is not None and live:
            params["subscription"] = subscription.id
        else:
            params["pending_invoice_items_behavior"] = "include"
        if subscription is not None and isinstance(card := subscription.default_payment_method, str):
            # A checkout stores the card with the subscription, not with the customer.
            params["default_payment_method"] = card
        await self._api().invoices.create_async(params, {"idempotency_key": _key("invoice", customer_id, metadata)})

    def _back(self, outcome: str) -> str:
        parts = urlsplit(self.settings.return_url)
        return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), ("checkout", outcome)])))


def cycle_name(cycle_start: datetime) -> str:
    """The name of a cycle in the metadata of an invoice item."""
    return rfc3339(cycle_start)


@contextmanager
def _existing_customer() -> Iterator[None]:
    """Calls whose only argument is a customer: a missing resource is that customer. Raises CustomerGone."""
    try:
        yield
    except stripe.InvalidRequestError as error:
        if error.code == GONE:
            raise CustomerGone from error
        raise


def _key(what: str, customer_id: str, metadata: dict[str, str]) -> str:
    """An idempotency key for creating one thing: concurrent callers that both found nothing create it once.

    Stripe repeats the first response to a key for a day, also a failure. The hour in the key lets a later attempt run.
    """
    return "/".join(["overage", what, customer_id, *metadata.values(), f"{datetime.now(UTC):%Y-%m-%dT%H}"])
