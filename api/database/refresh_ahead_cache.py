"""A cache for lookups of every request whose result may be a few seconds old, such as the principals of keys."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class RefreshAheadCache(Generic[Key, Value]):
    """Holds values that are at most `seconds` old. Concurrent callers of one key share one load.

    A request that uses a value in the second half of its life starts a load in the background, so that requests of a
    busy key never wait for the database. A load that finds nothing returns None, which is cached like any value.

    Where `stale_seconds` is more than `seconds`, a value of an age between them is returned too, and a load starts in
    the background: who asks for the first time in a while gets an older value rather than wait.
    """

    def __init__(
        self,
        load: Callable[[Key], Awaitable[Value]],
        seconds: float = 5.0,
        size: int = 10_000,
        *,
        stale_seconds: float = 0.0,
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._size = size
        self._longest = max(seconds, stale_seconds)
        self._values: dict[Key, tuple[float, Value]] = {}
        self._loading: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key) -> Value:
        """The value of this key. Raises what the load raises where no cached value is fresh enough."""
        if (known := self._values.get(key)) is not None:
            age = time.monotonic() - known[0]
            if age < self._seconds / 2:
                return known[1]
            if age < self._longest:
                self._refresh(key)
                return known[1]
        # Shielded: a client that disconnects must not cancel the load for the others who wait for it.
        return await asyncio.shield(self._refresh(key))

    def keep(self, key: Key, seconds: float) -> None:
        """Load in the background a value that is missing or older than this, unless some other load is going on."""
        known = self._values.get(key)
        if not self._loading and (known is None or time.monotonic() - known[0] >= seconds):
            self._refresh(key)

    def _refresh(self, key: Key) -> "asyncio.Task[Value]":
        if (task := self._loading.get(key)) is None:
            task = self._loading[key] = asyncio.create_task(self._load_into(key))
            task.add_done_callback(_report)
        return task

    async def _load_into(self, key: Key) -> Value:
        asked = time.monotonic()  # a value is as old as its query, not as its result
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
