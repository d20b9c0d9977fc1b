"""The background tasks of billing, which run as long as the API."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from api.background import PeriodicTask
from api.billing.dunning import note_ended_grace_periods
from api.billing.events import handle_pending
from api.billing.gateway import Gateway
from api.billing.overage import report_overage
from api.billing.problems import StripeUnavailable
from api.database.engine import UNREACHABLE, Database
from configs.billing import BillingSettings


@asynccontextmanager
async def billing(database: Database, settings: BillingSettings) -> AsyncIterator[Gateway]:
    """The gateway to Stripe. While inside, pending events are handled and the overage of ended cycles is charged."""
    gateway = Gateway(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close)

        async def every(seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
            expected = (StripeUnavailable, *UNREACHABLE)
            await stack.enter_async_context(
                PeriodicTask(name, work, seconds, expected=expected, starts_with_pause=False)
            )

        await every(settings.poll_seconds, "end of grace periods", lambda: note_ended_grace_periods(database))
        if gateway.configured:
            await every(settings.poll_seconds, "Stripe events", lambda: handle_pending(database, gateway))
            await every(settings.overage_seconds, "overage invoices", lambda: report_overage(database, gateway))
        yield gateway
