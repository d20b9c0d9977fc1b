"""Ids of answers, and reading what is stored of an answer that was given a moment ago."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

WRITTEN_SECONDS = 2.0
"""How long after an answer its impression may still be on its way to the database, from whatever process."""
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.65)
"""Seconds between two looks, `WRITTEN_SECONDS` in all. Whoever makes up an id of this moment costs few reads."""
_TIME_AND_RANDOM = 7
"""The version of UUIDs that begin with their time (RFC 9562, section 5.7)."""

_Found = TypeVar("_Found")


def new_recommendation_id() -> UUID:
    """A random id that begins with its time in milliseconds.

    By the time, `once_written` knows whether an impression that is not there may still come.
    """
    random = int.from_bytes(os.urandom(10), "big")
    high = time.time_ns() // 1_000_000 << 16 | _TIME_AND_RANDOM << 12 | random >> 68
    return UUID(int=high << 64 | 0b10 << 62 | random & (1 << 62) - 1)


def seconds_since(id_: UUID) -> float | None:
    """The age of an id of `new_recommendation_id`, negative where another clock is ahead; None for other ids."""
    return time.time() - (id_.int >> 80) / 1_000 if id_.version == _TIME_AND_RANDOM else None


async def once_written(
    id_: UUID, read: Callable[[], Awaitable[_Found | None]], flush: Callable[[], Awaitable[None]]
) -> _Found | None:
    """What `read` finds of an answer, whose impression may still wait to be written here or in another process.

    Only ids of the last moments are waited for, so that an unknown id is known as such at once.

    read: gives None while the impression is not there. flush: writes what waits in this process.
    """
    found = await read()
    age = seconds_since(id_)
    if found is not None or age is None or abs(age) > WRITTEN_SECONDS:
        return found
    await flush()
    found = await read()
    for pause in _PAUSES:
        if found is not None:
            break
        await asyncio.sleep(pause)
        found = await read()
    return found
