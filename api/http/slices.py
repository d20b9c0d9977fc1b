"""Cuts long work on the event loop into slices, between which the other requests of the process go on.

Decoding and validating hold Python's interpreter lock, so a thread would not help. At most one slice runs in an
iteration of the loop, whichever request it belongs to: eight large requests at once delay a small one by one slice an
iteration, not by eight.
"""

import asyncio
import time
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar
from weakref import WeakKeyDictionary

Part = TypeVar("Part")
SLICE_SECONDS = 0.002
"""A slice ends after the part of the work during which so much time has passed."""


class _Turns:
    """Gives one turn in each iteration of a loop, in the order of requests."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Future[None]] = deque()
        self._taken = False

    async def take(self) -> None:
        if self._taken:
            granted = self._loop.create_future()
            self._waiting.append(granted)
            await granted
        else:
            self._taken = True
            self._loop.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """Runs in the iteration after a turn."""
        while self._waiting:
            granted = self._waiting.popleft()
            if not granted.done():  # else its request was cancelled
                granted.set_result(None)  # the waiter runs in the next iteration, and before the next `_pass_on`
                self._loop.call_soon(self._pass_on)
                return
        self._taken = False


_turns: WeakKeyDictionary[AbstractEventLoop, _Turns] = WeakKeyDictionary()


async def turn() -> None:
    """Wait for this request's turn to work for up to a few milliseconds without a further await."""
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = _Turns(loop)
    await turns.take()


async def in_slices(parts: Iterable[Part]) -> AsyncIterator[Part]:
    """The parts of a long piece of work. Between some of them the loop goes on with other requests."""
    await turn()
    end = time.perf_counter() + SLICE_SECONDS
    for part in parts:
        yield part
        if time.perf_counter() > end:
            await turn()
            end = time.perf_counter() + SLICE_SECONDS
