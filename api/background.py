"""Work that is repeated beside the requests for as long as the application runs."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

import structlog

log = structlog.get_logger(__name__)


class PeriodicTask:
    """Repeats `work` between entering and leaving an `async with` block.

    A failure does not end the repetition: the error is logged, and `work` is called again at the next turn. Leaving
    the block cancels `work` where it is running and waits until it has stopped.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        seconds: float,
        *,
        expected: tuple[type[Exception], ...] = (),
        starts_with_pause: bool = True,
        seconds_after_failure: float | None = None,
    ) -> None:
        """
        name: what log lines call the task.
        seconds: the pause between the end of one turn and the beginning of the next.
        expected: errors that mean "not now" (the database does not answer). They are logged as warnings, all others as
            errors with their traceback.
        starts_with_pause: False calls `work` at once and pauses afterwards.
        seconds_after_failure: a longer pause after a turn that failed.
        """
        self._name = name
        self._work = work
        self._seconds = seconds
        self._expected = expected
        self._starts_with_pause = starts_with_pause
        self._seconds_after_failure = seconds if seconds_after_failure is None else seconds_after_failure
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "PeriodicTask":
        self._task = asyncio.create_task(self._repeat(), name=self._name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            await cancel_until_done(self._task)

    async def _repeat(self) -> None:
        pause = self._seconds if self._starts_with_pause else 0.0
        while True:
            await asyncio.sleep(pause)
            pause = self._seconds
            try:
                await self._work()
            except self._expected as error:
                log.warning("a background task failed and is tried again", task=self._name, error=repr(error))
                pause = self._seconds_after_failure
            except Exception:
                log.exception("a background task failed and is tried again", task=self._name)
                pause = self._seconds_after_failure


async def cancel_until_done(task: "asyncio.Task[None]") -> None:
    """Cancel a task that never ends by itself, and wait until it is done.

    One cancellation may not be enough. In Python 3.11 `asyncio.wait_for`, with which the connection pool waits, drops a
    cancellation that arrives together with the result, and the loop around it continues.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.5)
