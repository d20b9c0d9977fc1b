"""Keeps the second place of a journal up to date for as long as the application runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from api.background import PeriodicTask
from configs.journal import AnotherJournalError, Journal

COPY_SECONDS = 0.5
_AFTER_FAILURE_SECONDS = 15.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def copying_journal(
    journal: Journal, first: Callable[[], Awaitable[object]], expected: tuple[type[Exception], ...]
) -> AsyncIterator[None]:
    """While inside, the copy of a journal follows within a second. Before that, `first` is called until it succeeds."""
    pending = True

    async def follow() -> None:
        nonlocal pending
        if pending:
            await first()
            pending = False
        await asyncio.to_thread(journal.copy)

    name = f"copy of {journal.path.name}"
    errors = (OSError, AnotherJournalError)
    task = PeriodicTask(
        name,
        follow,
        COPY_SECONDS,
        expected=(*errors, *expected),
        starts_with_pause=False,
        seconds_after_failure=_AFTER_FAILURE_SECONDS,
    )
    async with task:
        yield
    try:
        await asyncio.to_thread(journal.copy)  # what came since the last turn
    except errors as error:
        log.error("a journal was not copied; the next start does it", task=name, error=repr(error))
