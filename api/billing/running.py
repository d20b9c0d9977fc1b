"""What billing does behind the requests, for as long as the API runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from api.background import end
from api.billing.dunning import note_lapses
from api.billing.events import forget_handled, handle_waiting
from api.billing.gateway import Gateway
from api.billing.overage import report_overage
from api.billing.problems import StripeAway
from api.database.engine import Database
from api.http.handlers import UNREACHABLE
from configs.settings import BillingSettings

FORGET_SECONDS = 3_600.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def billing(database: Database, settings: BillingSettings) -> AsyncIterator[Gateway]:
    """The gateway to Stripe. While inside, events that wait are handled and cycles that have ended are charged."""
    gateway = Gateway(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close)
        await stack.enter_async_context(_every(FORGET_SECONDS, lambda: forget_handled(database)))
        await stack.enter_async_context(_every(settings.poll_seconds, lambda: note_lapses(database)))
        if gateway.configured:
            await stack.enter_async_context(_every(settings.poll_seconds, lambda: handle_waiting(database, gateway)))
            await stack.enter_async_context(_every(settings.overage_seconds, lambda: report_overage(database, gateway)))
        yield gateway


@asynccontextmanager
async def _every(seconds: float, work: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    task = asyncio.create_task(_forever(seconds, work))
    try:
        yield
    finally:
        await end(task)


async def _forever(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await work()
        except (StripeAway, *UNREACHABLE) as error:
            log.warning("billing waits", error=repr(error))
        except Exception:
            log.exception("billing failed; it is tried again")
        await asyncio.sleep(seconds)
