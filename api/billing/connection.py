"""The connection to Stripe: its settings, its time-out, and its errors as problems of this API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import stripe
import structlog

from api.billing.problems import MissingSetting, StripeRefused, StripeUnavailable
from configs.billing import BillingSettings

UNAVAILABLE = (TimeoutError, stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError)

log = structlog.get_logger(__name__)


class StripeConnection:
    """A client of Stripe with the API key of the settings. Its calls raise MissingSetting where there is no key."""

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
                max_network_retries=1,  # with the same idempotency key, which the library makes for each call
            )

    @property
    def configured(self) -> bool:
        """Whether there is an API key and a webhook secret. Without the secret no payment would be noticed."""
        return self._client is not None and bool(self.settings.webhook_secrets)

    @property
    def for_tests(self) -> bool:
        """Whether the key is of Stripe's test mode, in which no money moves."""
        key = self.settings.api_key.get_secret_value() if self.settings.api_key else ""
        return key.startswith(("sk_test_", "rk_test_"))

    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets of which any may sign a webhook. Raises MissingSetting."""
        if not (found := self.settings.webhook_secrets):
            raise MissingSetting("STRIPE_WEBHOOK_SECRET")
        return found

    def require(self, *, webhooks: bool = False) -> None:
        """Raises MissingSetting where there is no API key or, with `webhooks`, no webhook secret."""
        self._api()
        if webhooks:
            self.webhook_secrets()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """A block of calls to Stripe, which share the time-out of one request.

        Raises StripeUnavailable where Stripe does not answer, and StripeRefused where it returns an error.
        """
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                yield
        except UNAVAILABLE as error:
            log.warning("stripe does not answer", error=error_text(error))
            raise StripeUnavailable from error
        except stripe.StripeError as error:
            log.error("stripe refused a request", error=error_text(error))
            raise StripeRefused from error

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close_async()  # type: ignore[no-untyped-call]

    def _api(self) -> "stripe._v1_services.V1Services":
        if self._client is None:
            raise MissingSetting("STRIPE_API_KEY")
        return self._client.v1


def error_text(error: BaseException) -> str:
    """The message of an error, without the response body, which may hold personal data."""
    user_message = error.user_message if isinstance(error, stripe.StripeError) else None
    return f"{type(error).__name__}: {user_message or error}".strip()
