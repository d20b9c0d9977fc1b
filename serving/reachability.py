"""Whether the model server answers anybody.

A server that refuses connections is away for every tenant. Any other failure is at first the trouble of the tenant
whose call it was. One check in the background then asks whether the server still answers at all. While the server is
away, nobody waits for it, and a probe asks repeatedly until it has come back.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from serving.contracts.messages import ServingUnavailable

PROBE_SECONDS = 0.25

log = structlog.get_logger(__name__)


class Reachability:
    """One per client; call `close` in the end."""

    def __init__(self, check: Callable[[], Awaitable[object]], returned: Callable[[], None]) -> None:
        """check: asks the server for something cheap, raises ServingUnavailable. returned: called when it is back."""
        self._check = check
        self._returned = returned
        self._task: asyncio.Task[None] | None = None
        self.away = False

    def lost(self, error: Exception) -> None:
        """The server is away. Probe it until it is back."""
        if not self.away:
            log.warning("model server lost", reason=str(error))
            self.away = True
        self._start()

    def suspect(self) -> None:
        """A call failed for a reason that may be the tenant's own. Find out whether the server answers at all."""
        self._start()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._until_it_answers())

    async def _until_it_answers(self) -> None:
        try:
            while True:
                try:
                    await self._check()
                    break
                except ServingUnavailable as error:
                    if not self.away:
                        log.warning("model server lost", reason=str(error))
                        self.away = True
                await asyncio.sleep(PROBE_SECONDS)
            if self.away:
                log.info("model server is back")
                self.away = False
                self._returned()
        finally:
            self._task = None
