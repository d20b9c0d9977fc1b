"""Counts requests per caller and window of time: in this process, or in Redis for several processes.

The number of a window is part of its key, so counting takes one increment: nothing is read or expired before it.
"""

import asyncio
import time
from collections import Counter
from typing import Protocol

import structlog
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

SOCKET_SECONDS = 0.05
BREAKER_SECONDS = 5.0
CONNECTION_ATTEMPTS = 5

log = structlog.get_logger(__name__)


class WindowCounter(Protocol):
    """Where requests are counted."""

    async def open(self) -> None:
        """Prepare to count, within the event loop that counts. Does not fail."""

    async def increment(self, key: str, window: int, seconds: int, by: int = 1) -> int:
        """Add to the count of a key in a window, and return the new count.

        window: the number of the window, in windows of `seconds` since the epoch.
        """

    async def close(self) -> None:
        """Close connections."""


class MemoryWindowCounter:
    """Counts of this process. A new window replaces the one before it, so memory is bounded by one window's callers."""

    def __init__(self) -> None:
        self._window: dict[int, int] = {}
        self._counts: dict[int, Counter[str]] = {}

    async def open(self) -> None:
        """Needs no preparation."""

    async def increment(self, key: str, window: int, seconds: int, by: int = 1) -> int:
        if self._window.get(seconds) != window:
            self._window[seconds] = window
            self._counts[seconds] = Counter()
        counts = self._counts[seconds]
        counts[key] += by
        return counts[key]

    async def close(self) -> None:
        self._counts.clear()


class RedisWindowCounter:
    """Counts that API processes share through Redis.

    A request waits for Redis for at most 50 ms. Where Redis does not answer, this process counts in its own memory,
    and one request asks Redis again after `breaker_seconds`.
    """

    def __init__(self, url: str, breaker_seconds: float = BREAKER_SECONDS) -> None:
        self._breaker_seconds = breaker_seconds
        self._client = Redis.from_url(
            url,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = RedisStorage(
            f"async+{url}",
            implementation="redispy",
            connection_pool=self._client.connection_pool,  # type: ignore[arg-type]
        )
        self._memory = MemoryWindowCounter()
        self._open_until = 0.0  # of the breaker, on the monotonic clock; 0 while it is closed

    async def open(self) -> None:
        """Connect now: with the handshake of a new connection, the first request may take longer than 50 ms."""
        for _ in range(CONNECTION_ATTEMPTS):
            try:
                await self._client.ping()
            except (RedisError, OSError, TimeoutError):
                continue  # requests find out, and use the breaker
            return

    async def increment(self, key: str, window: int, seconds: int, by: int = 1) -> int:
        now = time.monotonic()
        if now < self._open_until:
            return await self._memory.increment(key, window, seconds, by)
        probing = self._open_until > 0
        if probing:
            self._open_until = now + self._breaker_seconds  # only this request tries; the others go on in memory
        try:
            async with asyncio.timeout(SOCKET_SECONDS):
                count = await self._redis.incr(f"{key}/{window}", seconds, by)
        except (RedisError, OSError, TimeoutError) as error:
            if self._open_until == 0.0:
                log.warning("redis does not answer; limits are counted in this process", error=repr(error))
            self._open_until = time.monotonic() + self._breaker_seconds
            return await self._memory.increment(key, window, seconds, by)
        if probing:
            self._open_until = 0.0
            log.info("redis answers again")
        return count

    async def close(self) -> None:
        await self._client.aclose()
