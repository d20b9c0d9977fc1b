"""Rate limits: windows of a minute on the clock, counted in this process or, for several, in Redis.

A window's number is part of the key, so that one increment is all that a request costs: no reading, no expiring on
the way. Redis is asked through `limits.aio` with time-outs of 50 ms; where it does not answer, this process counts for
itself and asks again after 5 s.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import structlog
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from slowapi.util import get_remote_address
from slowapi.wrappers import Limit, LimitGroup

SOCKET_SECONDS = 0.05
BREAKER_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one request left of its limit."""

    limit: int
    remaining: int
    reset: int  # seconds since the epoch
    allowed: bool

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % self.reset),
        ]
        if not self.allowed:
            headers.append((b"retry-after", b"%d" % max(1, self.reset - int(time.time()))))
        return headers


class Counts(Protocol):
    """Where requests are counted."""

    async def increment(self, key: str, window: int, seconds: int, by: int = 1) -> int:
        """Count so many more in this window and return how many there are now."""

    async def close(self) -> None:
        """Let go of connections."""


class MemoryCounts:
    """Counts of this process. A new window forgets the last one, so nothing grows."""

    def __init__(self) -> None:
        self._window: dict[int, int] = {}
        self._counts: dict[int, Counter[str]] = {}

    async def increment(self, key: str, window: int, seconds: int, by: int = 1) -> int:
        if self._window.get(seconds) != window:
            self._window[seconds] = window
            self._counts[seconds] = Counter()
        counts = self._counts[seconds]
        counts[key] += by
        return counts[key]

    async def close(self) -> None:
        self._counts.clear()


class RedisCounts:
    """Counts that API processes share; memory's while Redis does not answer."""

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
        self._memory = MemoryCounts()
        self._open_until = 0.0  # the breaker: 0 while it is closed

    async def increment(self, key: str, window: int, seconds: int, by: int = 1) -> int:
        now = time.monotonic()
        if now < self._open_until:
            return await self._memory.increment(key, window, seconds, by)
        probing = self._open_until > 0
        if probing:
            self._open_until = now + self._breaker_seconds  # this request alone tries; the others need not wait with it
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


class Limits:
    """Charges requests to limits."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    async def charge(self, limit: Limit, identity: str, requests: int = 1) -> Verdict:
        """Count so many more requests of this identity, within the limit's scope."""
        item = limit.limit
        seconds = item.get_expiry()
        window = int(time.time()) // seconds
        count = await self._counts.increment(item.key_for(limit.scope, identity), window, seconds, requests)
        return Verdict(item.amount, max(0, item.amount - count), (window + 1) * seconds, count <= item.amount)


@lru_cache(maxsize=256)
def per_minute(amount: int, scope: str) -> Limit:
    """A limit of this many requests a minute. Scopes keep apart the identities of different kinds of callers."""
    (limit,) = LimitGroup(
        limit_provider=f"{amount}/minute",
        key_function=get_remote_address,
        scope=scope,
        per_method=False,
        methods=None,
        error_message=f"More than {amount} requests in this minute",
        exempt_when=None,
        cost=1,
        override_defaults=False,
    )
    return limit
