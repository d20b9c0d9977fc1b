"""What is looked up for every request and must not grow old: keys and users."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class FreshCache(Generic[Key, Value]):
    """Values that are at most `seconds` old, loaded once for all who wait.

    In the second half of a value's life a request that uses it has it loaded again behind its back, so that no request
    of a busy key waits for the database. Absence is a value too.
    """

    def __init__(self, load: Callable[[Key], Awaitable[Value]], seconds: float = 5.0, size: int = 10_000) -> None:
        self._load = load
        self._seconds = seconds
        self._size = size
        self._values: dict[Key, tuple[float, Value]] = {}
        self._loading: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key) -> Value:
        """The value of this key. Raises what loading raises where there is no value young enough."""
        if (known := self._values.get(key)) is not None:
            age = time.monotonic() - known[0]
            if age < self._seconds / 2:
                return known[1]
            if age < self._seconds:
                self._refresh(key)
                return known[1]
        # Shielded: a client that goes away must not take the load from the others who wait for it.
        return await asyncio.shield(self._refresh(key))

    def _refresh(self, key: Key) -> "asyncio.Task[Value]":
        if (task := self._loading.get(key)) is None:
            task = self._loading[key] = asyncio.create_task(self._load_into(key))
            task.add_done_callback(_report)
        return task

    async def _load_into(self, key: Key) -> Value:
        asked = time.monotonic()  # the age counts from before the database looked
        try:
            value = await self._load(key)
        finally:
            del self._loading[key]
        self._values.pop(key, None)
        self._values[key] = (asked, value)
        while len(self._values) > self._size:
            del self._values[next(iter(self._values))]
        return value


def _report(task: "asyncio.Task[Value]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a lookup failed", error=repr(error))
