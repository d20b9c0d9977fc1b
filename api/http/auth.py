"""Credentials and limits: who is calling, and whether it may call once more."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from slowapi.wrappers import Limit
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.client import ClientAddress
from api.http.headers import header, header_list
from api.http.limits import Limits, per_minute
from api.http.principal import STATE_KEY, KeyPrincipal, Principal
from api.http.problems import Problem, problem_response
from configs.settings import LimitSettings

RESPONSE_HEADERS = "response_headers"
"""Key of the request's state: headers that whatever answers must carry (see `api.http.requests`)."""

UNREADABLE = "unreadable"
"""Key of the request's state: a `Problem` with its path or query, for whoever has counted it."""

CHARGE = "charge"
"""Key of the request's state: a `Charge`, for a request that does the work of several."""

Charge = Callable[[int], Awaitable[Problem | None]]
"""Counts so many more requests of the caller; the refusal where that is past its limit."""

FindKey = Callable[[str], Awaitable[Principal | None]]


@dataclass(frozen=True)
class Authenticators:
    """How credentials become principals. Each returns None for one that is not valid."""

    api_key: FindKey
    token: FindKey


class Credentials:
    """ASGI middleware: finds the principal and charges the request to its limit, or to its address where it has none.

    It refuses nobody but who is over a limit or sent what nobody can read: whether a route needs a credential is the
    route's to say.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticators: Authenticators,
        limits: Limits,
        settings: LimitSettings,
        exempt: tuple[str, ...],
        charging_itself: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """exempt: beginnings of paths that nobody counts. charging_itself: method and path of routes that find out by
        themselves who calls, and then call `charge_caller` or not.
        """
        self._app = app
        self._authenticators = authenticators
        self._limits = limits
        self._settings = settings
        self._exempt = exempt
        self._charging_itself = charging_itself
        self._address = ClientAddress(settings.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal: Problem | None = scope["state"].get(UNREADABLE)
        if scope["path"].startswith(self._exempt):
            pass
        elif refusal is None and (scope["method"], scope["path"]) in self._charging_itself:
            scope["state"][CHARGE] = partial(self._charge, scope, None)
        else:
            try:
                principal = await self._principal(scope)
                refusal = await self._charge(scope, principal) or refusal
                scope["state"][STATE_KEY] = principal
                scope["state"][CHARGE] = partial(self._charge, scope, principal)
            except Problem as problem:
                refusal = problem
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(refusal)(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal | None:
        if (key := header(scope, b"x-api-key")) is not None:
            return await self._authenticators.api_key(key)
        scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._authenticators.token(token.strip())
        return None

    async def _charge(self, scope: Scope, principal: Principal | None, requests: int = 1) -> Problem | None:
        limit, identity = self._limit_of(scope, principal)
        if limit is None:
            return None
        verdict = await self._limits.charge(limit, identity, requests)
        scope["state"][RESPONSE_HEADERS] = verdict.headers
        return None if verdict.allowed else Problem(429, str(limit.error_message))

    def _limit_of(self, scope: Scope, principal: Principal | None) -> tuple[Limit | None, str]:
        if principal is None:
            address = self._address.of(scope, header_list(scope, b"x-forwarded-for"))
            return per_minute(self._settings.per_ip, "address"), address
        if isinstance(principal, KeyPrincipal):
            amount = self._settings.per_key if principal.rate_limit is None else principal.rate_limit
            return (per_minute(amount, "key") if amount else None), principal.key_id.hex
        return per_minute(self._settings.per_jwt, "user"), f"{principal.tenant.id}/{principal.user_id}"


async def charge_caller(request: Request) -> Problem | None:
    """Count this request of a route that charges by itself; the refusal where the caller is past its limit."""
    charge: Charge = request.scope["state"][CHARGE]
    return await charge(1)
