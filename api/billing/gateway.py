"""Stripe as this product uses it: the only module that calls its API.

Every call is asynchronous and within `STRIPE_TIMEOUT_SECONDS`. What it answers are the library's typed objects.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx
import stripe
import structlog

from api.billing.problems import CustomerGone, MissingSetting, StripeAway, StripeRefused
from api.billing.subscriptions import Interval, lookup_key
from api.http.schemas import rfc3339
from configs.plans import Plan
from configs.settings import BillingSettings

AWAY = (TimeoutError, stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError)
GONE = "resource_missing"
SHOWN_INVOICES = 100
CURRENCY = "usd"
"""Of the prices in `plans.yaml`."""

log = structlog.get_logger(__name__)


class Gateway:
    """Stripe's API behind the key of the settings. Raises MissingSetting where there is none."""

    def __init__(self, settings: BillingSettings) -> None:
        self.settings = settings
        self._http: stripe.HTTPXClient | None = None
        self._client: stripe.StripeClient | None = None
        if settings.api_key is not None:
            self._http = stripe.HTTPXClient(timeout=httpx.Timeout(settings.timeout_seconds))
            self._client = stripe.StripeClient(
                settings.api_key.get_secret_value(),
                http_client=self._http,
                base_addresses={"api": settings.api_base.rstrip("/")},
                max_network_retries=1,  # with the same idempotency key: the library makes one for each call
            )

    @property
    def configured(self) -> bool:
        """Whether there is a key and a secret: who takes money must hear of it too."""
        return self._client is not None and self.settings.webhook_secret is not None

    @property
    def for_tests(self) -> bool:
        """Whether the key is one of Stripe's test mode, in which no money moves."""
        key = self.settings.api_key.get_secret_value() if self.settings.api_key else ""
        return key.startswith(("sk_test_", "rk_test_"))

    def webhook_secret(self) -> str:
        """The secret that webhooks are signed with. Raises MissingSetting."""
        if self.settings.webhook_secret is None:
            raise MissingSetting("STRIPE_WEBHOOK_SECRET")
        return self.settings.webhook_secret.get_secret_value()

    def require(self, *, webhooks: bool = False) -> None:
        """Raises MissingSetting without a key, and with `webhooks` without their secret."""
        self._api()
        if webhooks:
            self.webhook_secret()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """What is asked of Stripe inside has the time-out of one request, all of it together.

        Raises StripeAway where Stripe does not answer, StripeRefused where it says no.
        """
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                yield
        except AWAY as error:
            log.warning("stripe does not answer", error=_words(error))
            raise StripeAway from error
        except stripe.StripeError as error:
            log.error("stripe refused a request", error=_words(error))
            raise StripeRefused from error

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close_async()  # type: ignore[no-untyped-call]

    async def price(self, lookup_key: str) -> stripe.Price | None:
        """The active price with this lookup key."""
        found = await self._api().prices.list_async({"lookup_keys": [lookup_key], "active": True, "limit": 1})
        return found.data[0] if found.data else None

    async def create_price(self, plan: Plan, interval: Interval) -> None:
        """Make the price of a plan, under its lookup key, and the product where there is none."""
        found = await self._api().products.list_async({"ids": [plan.id]})
        if not found.data:
            await self._api().products.create_async({"id": plan.id, "name": plan.name})
        units = plan.monthly_price if interval == "monthly" else plan.annual_price
        await self._api().prices.create_async(
            {
                "product": plan.id,
                "currency": CURRENCY,
                "unit_amount": units * 100,
                "recurring": {"interval": "month" if interval == "monthly" else "year"},
                "lookup_key": lookup_key(plan.id, interval),
                "metadata": {"planId": plan.id},
            }
        )

    async def create_customer(self, tenant_id: str) -> str:
        """The id of a new customer. Nobody's name or address is sent: people type theirs at Stripe."""
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
        """End a subscription now."""
        await self._api().subscriptions.cancel_async(subscription_id)

    async def open_checkouts(self, customer_id: str) -> list[str]:
        """Ids of the customer's checkouts that could still be paid."""
        found = await self._api().checkout.sessions.list_async({"customer": customer_id, "status": "open"})
        return [session.id for session in found.data]

    async def expire_checkout(self, session_id: str) -> bool:
        """See that nobody pays this checkout any more; False where somebody just did."""
        try:
            await self._api().checkout.sessions.expire_async(session_id)
        except stripe.InvalidRequestError as error:
            log.info("a checkout could not be closed", error=_words(error))
            return False
        return True

    async def create_checkout(self, customer_id: str, price_id: str, tenant_id: str) -> str:
        """The URL of a page on which the customer subscribes to the price."""
        session = await self._api().checkout.sessions.create_async(
            {
                "mode": "subscription",
                "customer": customer_id,
                "client_reference_id": tenant_id,
                "line_items": [{"price": price_id, "quantity": 1}],
                "metadata": {"tenant": tenant_id},
                "subscription_data": {"metadata": {"tenant": tenant_id}},
                "success_url": self._back("done"),
                "cancel_url": self._back("cancelled"),
            }
        )
        if session.url is None:
            raise StripeRefused("The payment service made a checkout without a page")
        return session.url

    async def create_portal(self, customer_id: str) -> str:
        """The URL of a page on which the customer changes its card, plan and subscription. Raises CustomerGone."""
        with _living():
            session = await self._api().billing_portal.sessions.create_async(
                {"customer": customer_id, "return_url": self.settings.return_url}
            )
        return session.url

    async def invoices(self, customer_id: str) -> list[stripe.Invoice]:
        """The newest invoices, newest first. Raises CustomerGone."""
        with _living():
            found = await self._api().invoices.list_async({"customer": customer_id, "limit": SHOWN_INVOICES})
        return found.data

    async def draft_invoice(self, subscription_id: str) -> str | None:
        """The id of the subscription's invoice that is not final yet, and so takes another item."""
        found = await self._api().invoices.list_async({"subscription": subscription_id, "status": "draft", "limit": 1})
        return found.data[0].id if found.data else None

    async def find_item(self, customer_id: str, metadata: dict[str, str]) -> stripe.InvoiceItem | None:
        """The customer's invoice item with this metadata, on an invoice or waiting for one."""
        found = await self._api().invoice_items.list_async({"customer": customer_id, "limit": 100})
        async for item in found.auto_paging_iter():
            known: dict[str, str] = item.metadata.to_dict() if item.metadata else {}
            if metadata.items() <= known.items():
                return item
        return None

    async def add_item(
        self,
        customer_id: str,
        amount_cents: int,
        currency: str,
        description: str,
        metadata: dict[str, str],
        *,
        subscription_id: str | None,
        draft_invoice_id: str | None,
    ) -> stripe.InvoiceItem:
        """A new invoice item: on this draft invoice, or on the subscription's next."""
        params: stripe.params.InvoiceItemCreateParams = {
            "customer": customer_id,
            "amount": amount_cents,
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
        """Make an invoice of the items that wait: of somebody to whom none comes by itself soon."""
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
            params["default_payment_method"] = card  # a checkout leaves it with the subscription, not the customer
        await self._api().invoices.create_async(params, {"idempotency_key": _key("invoice", customer_id, metadata)})

    def _api(self) -> "stripe._v1_services.V1Services":
        if self._client is None:
            raise MissingSetting("STRIPE_API_KEY")
        return self._client.v1

    def _back(self, outcome: str) -> str:
        parts = urlsplit(self.settings.return_url)
        return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), ("checkout", outcome)])))


def cycle_name(cycle_start: datetime) -> str:
    """How an invoice item names its cycle."""
    return rfc3339(cycle_start)


@contextmanager
def _living() -> Iterator[None]:
    """Of a customer, and nothing else that could be missing."""
    try:
        yield
    except stripe.InvalidRequestError as error:
        if error.code == GONE:
            raise CustomerGone from error
        raise


def _key(what: str, customer_id: str, metadata: dict[str, str]) -> str:
    """Beside the look-up: two who have looked at once make one thing all the same.

    Stripe gives the first answer to a key for a day, a failure too; so an hour later it is another key.
    """
    return "/".join(["overage", what, customer_id, *metadata.values(), f"{datetime.now(UTC):%Y-%m-%dT%H}"])


def _words(error: BaseException) -> str:
    """What an error says, without the body that came with it."""
    said = error.user_message if isinstance(error, stripe.StripeError) else None
    return f"{type(error).__name__}: {said or error}".strip()
