"""The account at Stripe."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from configs.settings import Settings


class BillingSettings(Settings):
    """Stripe. Without its key and secret the routes that need them answer 503; everything else works."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    api_key: SecretStr | None = Field(
        default=None, alias="STRIPE_API_KEY", description="secret key of the account; None: no billing"
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        alias="STRIPE_WEBHOOK_SECRET",
        description="while one is replaced, two between commas: both are accepted",
    )
    api_base: str = Field(default="https://api.stripe.com", alias="STRIPE_API_BASE", description="of Stripe's API")
    return_url: str = Field(
        default="http://localhost:8080/docs",
        alias="BILLING_RETURN_URL",
        description="the page to which Stripe's checkout and portal return",
    )
    timeout_seconds: float = Field(
        default=5.0,
        alias="STRIPE_TIMEOUT_SECONDS",
        gt=0,
        description="bound on all calls to Stripe during one request",
    )
    poll_seconds: float = Field(
        default=5.0,
        alias="BILLING_POLL_SECONDS",
        gt=0,
        description="between two polls for events that were not handled",
    )
    retry_seconds: float = Field(
        default=20.0,
        alias="BILLING_RETRY_SECONDS",
        gt=0,
        description="after which an event that was not handled is tried again; doubles each time",
    )
    overage_seconds: float = Field(
        default=60.0, alias="OVERAGE_SECONDS", gt=0, description="between two polls for billing cycles that have ended"
    )

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets of which any may sign a webhook."""
        given = self.webhook_secret.get_secret_value() if self.webhook_secret else ""
        return tuple(given.replace(",", " ").split())
