"""Reads that callers share: those who come while one runs are answered together by the next."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Gathered(Generic[Key, Value]):
    """Turns a read of many keys into one that is called with a key, for as many callers as there are.

    A caller that finds a read free starts it at once and waits for nobody; a crowd shares a statement. No read is
    joined after it began: what a caller is given was read after it asked.
    """

    def __init__(
        self, read: Callable[[list[Key]], Awaitable[list[Value]]], at_once: int = 2, max_keys: int = 64
    ) -> None:
        """read: values in the order of the keys; at_once: reads that may run side by side, so that one slow key
        does not hold up everybody; max_keys: of one read."""
        self._read = read
        self._free = at_once
        self._max_keys = max_keys
        self._waiting: list[tuple[Key, asyncio.Future[Value]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def get(self, key: Key) -> Value:
        """The value of the key; raises what its read raises."""
        answer: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if self._free:
            self._free -= 1
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await answer

    async def _run(self) -> None:
        """Read what waits until nothing does. A caller that went away is not read for."""
        try:
            while self._waiting:
                taken = [each for each in self._waiting[: self._max_keys] if not each[1].done()]
                del self._waiting[: self._max_keys]
                if taken:
                    await self._answer(taken)
        finally:
            self._free += 1

    async def _answer(self, taken: list[tuple[Key, asyncio.Future[Value]]]) -> None:
        try:
            values = await self._read([key for key, _ in taken])
        except Exception as error:  # each of those who asked is told
            for _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), value in zip(taken, values, strict=True):
            if not answer.done():
                answer.set_result(value)
