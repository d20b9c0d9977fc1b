"""Finds out who sends a request, and counts the request against that caller's rate limit."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.headers import header
from api.http.limits import RateLimiter
from api.http.principal import STATE_KEY, Principal
from api.http.problems import Problem, problem_response

RESPONSE_HEADERS = "response_headers"
"""Key of the request's state: headers that every response to the request carries (see `api.http.requests`)."""

UNREADABLE = "unreadable"
"""Key of the request's state: the `Problem` of a path or query that cannot be decoded. It is answered once counted."""

COUNT_REQUESTS = "count_requests"
"""Key of the request's state: a `CountRequests`, for a request that does the work of several."""

CountRequests = Callable[[int], Awaitable[Problem | None]]
"""Counts so many requests of the caller. Returns the 429 to answer where they exceed its limit."""

FindPrincipal = Callable[[str], Awaitable[Principal | None]]


@dataclass(frozen=True)
class Authenticators:
    """Turn credentials into principals. `api_key` and `token` return None for a credential that is not valid.

    is_doubtful: whether the lookup of an API key asks the database for what anyone can have made up.
    """

    api_key: FindPrincipal
    token: FindPrincipal
    is_doubtful: Callable[[str], bool]


class Authentication:
    """ASGI middleware: stores the principal in the request's state, and counts the request for it, or for the client's
    address where there is none.

    It refuses requests over a limit and requests that cannot be decoded. Whether a route needs a credential, the route
    decides (see `api.http.principal`).
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticators: Authenticators,
        limiter: RateLimiter,
        exempt: tuple[str, ...],
        counted_by_route: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """
        exempt: paths that are not counted.
        counted_by_route: (method, path) of routes that authenticate by themselves and call `count_request` if need be.
        """
        self._app = app
        self._authenticators = authenticators
        self._limiter = limiter
        self._exempt = exempt
        self._counted_by_route = counted_by_route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        refusal: Problem | None = state.get(UNREADABLE)
        if scope["path"] not in self._exempt:
            state[COUNT_REQUESTS] = partial(self._count, scope)
            if refusal is not None or (scope["method"], scope["path"]) not in self._counted_by_route:
                try:
                    refusal = await self._identify(scope) or refusal
                except Problem as problem:  # of a credential that cannot be checked at the moment
                    refusal = await self._count(scope) or problem
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(refusal)(scope, receive, send)

    async def _identify(self, scope: Scope) -> Problem | None:
        """Store the principal, and count the request. Returns the 429 to answer where it exceeds the limit.

        A doubtful key is counted for the client's address before it is looked up, so that random keys of an exhausted
        address cost no query. A key that was made here is never doubtful for long, so no address blocks it.
        """
        key = header(scope, b"x-api-key")
        if key is not None and self._authenticators.is_doubtful(key):
            if (refusal := await self._count(scope)) is not None:
                return refusal
            if (found := await self._authenticators.api_key(key)) is None:
                return None
            scope["state"][STATE_KEY] = found
        else:
            scope["state"][STATE_KEY] = await self._principal(scope)
        return await self._count(scope)

    async def _principal(self, scope: Scope) -> Principal | None:
        if (key := header(scope, b"x-api-key")) is not None:
            return await self._authenticators.api_key(key)
        scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._authenticators.token(token.strip())
        return None

    async def _count(self, scope: Scope, requests: int = 1) -> Problem | None:
        status = await self._limiter.hit(Request(scope), requests)
        if status is None:
            return None
        scope["state"][RESPONSE_HEADERS] = status.headers
        return None if status.allowed else Problem(429, f"More than {status.limit} requests in this minute")


async def count_request(request: Request) -> Problem | None:
    """Count this request, on a route of `counted_by_route`. Returns the 429 to answer where it exceeds the limit."""
    count: CountRequests = request.scope["state"][COUNT_REQUESTS]
    return await count(1)
