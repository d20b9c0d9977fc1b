"""The demo's Stripe: a stand-in that runs beside the API, or a real account whose key is in the environment."""

import secrets
from collections.abc import Callable

from configs.addresses import PortSettings
from configs.billing import BillingSettings


class DemoStripe:
    """The Stripe that the demo uses. The stand-in's key and webhook secret are made once per installation."""

    def __init__(self, ports: PortSettings, settings: BillingSettings, keep: Callable[[str, Callable[[], str]], str]):
        self._settings = settings
        self._return_url = f"{ports.url('api')}/docs"
        self._key = keep("STRIPE_API_KEY", lambda: f"sk_test_{secrets.token_urlsafe(24)}")
        self._secret = keep("STRIPE_WEBHOOK_SECRET", lambda: f"whsec_{secrets.token_urlsafe(24)}")
        self.url = ports.url("stripe")

    @property
    def real(self) -> bool:
        """Whether the environment has the key of a real account. It may have the stand-in's key, from demo.env."""
        key = self._settings.api_key
        return key is not None and key.get_secret_value() != self._key

    @property
    def kind(self) -> str:
        return "your account" if self.real else "the stand-in"

    @property
    def program_environment(self) -> dict[str, str] | None:
        """The variables of the stand-in's process, or None where it does not run."""
        return None if self.real else {"STRIPE_API_KEY": self._key, "STRIPE_WEBHOOK_SECRET": self._secret}

    @property
    def api_environment(self) -> dict[str, str]:
        """The variables of the API. It inherits a real account's key from the environment."""
        back = {} if "return_url" in self._settings.model_fields_set else {"BILLING_RETURN_URL": self._return_url}
        return back | (self.program_environment or {}) | ({} if self.real else {"STRIPE_API_BASE": self.url})

    @property
    def announced(self) -> str:
        """The line about Stripe that the demo prints."""
        if self.real:
            return "your account; `.venv/bin/python -m api create-prices` makes the prices of the plans there"
        return f"{self.url}  a stand-in: no money moves (set STRIPE_API_KEY to use your own account)"

    @property
    def exported(self) -> dict[str, str]:
        """The lines of demo.env. The key of a real account is written nowhere."""
        if not self.real:
            return {"STRIPE_API_KEY": self._key, "STRIPE_WEBHOOK_SECRET": self._secret, "STRIPE_API_BASE": self.url}
        secret = self._settings.webhook_secret
        return {
            "STRIPE_WEBHOOK_SECRET": secret.get_secret_value() if secret else "",
            "STRIPE_API_BASE": self._settings.api_base,
        }
