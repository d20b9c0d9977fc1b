"""A stand-in that tests share, and stand-ins with a clock of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import stripe

from tests.fixtures.stripe.receiver import Receiver, receiving
from tests.fixtures.stripe.running import StandIn, seed, stand_in


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """One for tests that neither move the clock nor disturb it."""
    with stand_in(tmp_path_factory.mktemp("stripe") / "state.json") as running:
        yield running


@dataclass(frozen=True)
class Scene:
    """A stand-in at a given moment, whose events are received."""

    running: StandIn
    receiver: Receiver

    @property
    def client(self) -> stripe.StripeClient:
        return self.running.client

    def subscribed(self, price: stripe.Price, card: str = "pm_card_visa") -> stripe.Subscription:
        """A new customer's subscription, paid with this card."""
        customer = self.client.v1.customers.create({"email": "buyer@shop.example"})
        return self.client.v1.subscriptions.create(
            {"customer": customer.id, "items": [{"price": price.id}], "default_payment_method": card}
        )

    def now(self, subscription: stripe.Subscription) -> stripe.Subscription:
        """The subscription as it is now."""
        return self.client.v1.subscriptions.retrieve(subscription.id)

    def price(self, lookup_key: str = "plan-starter-monthly", cents: int = 4_900) -> stripe.Price:
        """A price a month, or a year where the lookup key says so."""
        return seed(self.client, lookup_key, cents, "year" if lookup_key.endswith("annual") else "month")


@pytest.fixture
def scene_at(tmp_path: Path) -> object:
    """`with scene_at("2026-01-31T10:00:00Z") as scene:` the clock stands still there."""

    @contextmanager
    def begin(moment: str, *options: str) -> Iterator[Scene]:
        with (
            receiving() as receiver,
            stand_in(tmp_path / "state.json", receiver.url, "--at", moment, "--frozen", *options) as running,
        ):
            yield Scene(running, receiver)

    return begin
