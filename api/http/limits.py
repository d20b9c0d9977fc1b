"""Rate limits: declared with slowapi's `Limiter`, counted asynchronously in fixed windows of the clock.

slowapi 0.1.10 asks its store synchronously, and a Redis that hangs would then stop every request of the process,
`/health` included. `RateLimiter` therefore replaces slowapi's check and keeps its declarations: a key function says
whom a request counts for, a limit string such as "1000/minute" says how many requests that caller has.
"""

import time
from dataclasses import dataclass

from limits import RateLimitItem
from slowapi import Limiter
from starlette.requests import Request

from api.http.client import ClientAddress
from api.http.principal import KeyPrincipal, principal_of
from api.http.window_counters import WindowCounter
from configs.api import LimitSettings

NO_LIMIT = 0
"""The rate limit of API keys whose requests are not counted."""
MAX_PARSED = 256


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """A caller's limit after its request was counted."""

    limit: int
    remaining: int
    reset: int  # when the window ends, in seconds since the epoch
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


class RateLimiter(Limiter):
    """slowapi's `Limiter` with an asynchronous check, `hit`. Its synchronous store is never asked."""

    def __init__(self, settings: LimitSettings, counter: WindowCounter, address: ClientAddress | None = None) -> None:
        super().__init__(key_func=self.caller_key, default_limits=[self.limit_string], storage_uri="memory://")
        self._settings = settings
        self._counter = counter
        self._address = address or ClientAddress(settings.trusted_proxies)
        self._parsed: dict[str, RateLimitItem] = {}

    def caller_key(self, request: Request) -> str:
        """Whom the request counts for, as `kind:requests a minute:identity`.

        The kind keeps apart identities that are equal by chance. Without a valid credential it is the client's address.
        """
        principal = principal_of(request)
        if principal is None:
            return f"address:{self._settings.per_ip}:{self._address.of_request(request)}"
        if isinstance(principal, KeyPrincipal):
            amount = self._settings.per_key if principal.rate_limit is None else principal.rate_limit
            return f"key:{amount}:{principal.key_id.hex}"
        return f"user:{self._settings.per_jwt}:{principal.tenant.id}/{principal.user_id}"

    @staticmethod
    def limit_string(key: str) -> str:
        """The limit of the caller with this key."""
        _, amount, _ = key.split(":", 2)
        return f"{amount}/minute"

    async def hit(self, request: Request, cost: int = 1) -> RateLimitStatus | None:
        """Count `cost` requests of the caller. None where its requests have no limit."""
        key = self.caller_key(request)
        _, amount, _ = key.split(":", 2)
        if int(amount) == NO_LIMIT:
            return None
        item = self._parsed.get(amount) or self._parse(amount, request)
        seconds = item.get_expiry()
        window = int(time.time()) // seconds
        count = await self._counter.increment(item.key_for(key), window, seconds, cost)
        return RateLimitStatus(item.amount, max(0, item.amount - count), (window + 1) * seconds, count <= item.amount)

    def _parse(self, amount: str, request: Request) -> RateLimitItem:
        """The caller's limit as slowapi parses it. It is kept, because parsing costs more than counting."""
        (group,) = self._default_limits
        (limit,) = group.with_request(request)  # type: ignore[no-untyped-call]
        if len(self._parsed) >= MAX_PARSED:
            self._parsed.clear()
        item: RateLimitItem = limit.limit
        self._parsed[amount] = item
        return item
