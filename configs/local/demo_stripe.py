"""Stripe in the demo: the stand-in that runs beside the API, or the account whose key is set when the demo starts."""

import secrets
from collections.abc import Callable

from configs.settings import BillingSettings, PortSettings


class DemoStripe:
    """Which Stripe the demo uses. The stand-in's key and webhook secret are made once for each installation."""

    def __init__(self, ports: PortSettings, settings: BillingSettings, keep: Callable[[str, Callable[[], str]], str]):
        self._settings = settings
        self._return_url = f"http://{ports.host}:{ports.api}/docs"
        self._key = keep("STRIPE_API_KEY", lambda: f"sk_test_{secrets.token_urlsafe(24)}")
        self._secret = keep("STRIPE_WEBHOOK_SECRET", lambda: f"whsec_{secrets.token_urlsafe(24)}")
        self.url = f"http://{ports.host}:{ports.stripe}"

    @property
    def real(self) -> bool:
        """Whether the environment holds a key of somebody's account; ours may be there too, from demo.env."""
        key = self._settings.api_key
        return key is not None and key.get_secret_value() != self._key

    @property
    def kind(self) -> str:
        return "your account" if self.real else "the stand-in"

    @property
    def program_environment(self) -> dict[str, str] | None:
        """Secrets of the stand-in's process, or None where it does not run."""
        return None if self.real else {"STRIPE_API_KEY": self._key, "STRIPE_WEBHOOK_SECRET": self._secret}

    @property
    def api_environment(self) -> dict[str, str]:
        """What the API needs to know. A real key is in the environment that it inherits."""
        back = {} if "return_url" in self._settings.model_fields_set else {"BILLING_RETURN_URL": self._return_url}
        return back | (self.program_environment or {}) | ({} if self.real else {"STRIPE_API_BASE": self.url})

    @property
    def announced(self) -> str:
        """What to say of it to whoever started the demo."""
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
