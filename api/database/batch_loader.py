"""Combines the reads of concurrent callers: those that arrive while reads run are answered together by the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BatchLoader(Generic[Key, Value]):
    """Offers a read of many keys as a read of one key, to as many concurrent callers as there are.

    A caller that comes while fewer than `concurrent_reads` run has its read started at once. All others share the next
    statement. No caller joins a read that has begun, so each gets a value that was read after its call. A key that
    several callers of one read ask for is read once, and they share its value.
    """

    def __init__(
        self, read: Callable[[list[Key]], Awaitable[list[Value]]], concurrent_reads: int = 2, max_keys: int = 64
    ) -> None:
        """
        read: returns the values in the order of the keys.
        concurrent_reads: how many reads may run side by side, so that one slow key does not delay all callers.
        max_keys: the most callers that one read answers.
        """
        self._read = read
        self._free_reads = concurrent_reads
        self._max_keys = max_keys
        self._waiting: list[tuple[Key, asyncio.Future[Value]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def load(self, key: Key) -> Value:
        """The value of the key. Raises what the read raises."""
        value: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, value))
        if self._free_reads:
            self._free_reads -= 1
            task = asyncio.create_task(self._read_until_nobody_waits())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await value

    async def _read_until_nobody_waits(self) -> None:
        try:
            while self._waiting:
                batch = [each for each in self._waiting[: self._max_keys] if not each[1].done()]  # done: cancelled
                del self._waiting[: self._max_keys]
                if batch:
                    await self._read_batch(batch)
        finally:
            self._free_reads += 1

    async def _read_batch(self, batch: list[tuple[Key, asyncio.Future[Value]]]) -> None:
        keys = list(dict.fromkeys(key for key, _ in batch))
        try:
            values = dict(zip(keys, await self._read(keys), strict=True))
        except Exception as error:  # raised in every caller of this read
            for _, value in batch:
                if not value.done():
                    value.set_exception(error)
            return
        for key, value in batch:
            if not value.done():
                value.set_result(values[key])
