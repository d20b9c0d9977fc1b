"""What billing does behind the requests, for as long as the API runs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from api.background import PeriodicTask
from api.billing.dunning import note_lapses
from api.billing.events import forget_handled, handle_waiting
from api.billing.gateway import Gateway
from api.billing.overage import report_overage
from api.billing.problems import StripeAway
from api.database.engine import UNREACHABLE, Database
from configs.settings import BillingSettings

FORGET_SECONDS = 3_600.0


@asynccontextmanager
async def billing(database: Database, settings: BillingSettings) -> AsyncIterator[Gateway]:
    """The gateway to Stripe. While inside, events that wait are handled and cycles that have ended are charged."""
    gateway = Gateway(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close)

        async def every(seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
            expected = (StripeAway, *UNREACHABLE)
            await stack.enter_async_context(
                PeriodicTask(name, work, seconds, expected=expected, starts_with_pause=False)
            )

        await every(FORGET_SECONDS, "deletion of handled events", lambda: forget_handled(database))
        await every(settings.poll_seconds, "end of grace periods", lambda: note_lapses(database))
        if gateway.configured:
            await every(settings.poll_seconds, "Stripe events", lambda: handle_waiting(database, gateway))
            await every(settings.overage_seconds, "overage invoices", lambda: report_overage(database, gateway))
        yield gateway
