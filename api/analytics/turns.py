"""Turns of those who count large tables, so that others find a connection and a processor meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from api.database.scope import TenantScope
from api.http.problems import Unavailable

AT_ONCE = 4
"""Counts that run in a process at once, each of another tenant: a quarter of its connections."""
WAIT_SECONDS = 20.0


class CountingTurns:
    """The turns of one process. Whoever waits holds no connection."""

    def __init__(self, at_once: int = AT_ONCE, seconds: float = WAIT_SECONDS) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._seconds = seconds
        self._of_tenant: WeakValueDictionary[TenantScope, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, scope: TenantScope) -> AsyncIterator[None]:
        """A turn of the tenant, which has one at a time. Raises Unavailable where none is free within the wait."""
        of_tenant = self._of_tenant.setdefault(scope, asyncio.Lock())
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._seconds):
                    await stack.enter_async_context(of_tenant)
                    await stack.enter_async_context(self._slots)
            except TimeoutError as error:
                raise Unavailable("Other figures are being counted: ask again in a moment") from error
            yield
