"""How requests are metered: a route lets itself be admitted, counts what it did, and pays if its answer is a 2xx."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.database.scope import TenantScope
from api.edge import principal
from api.edge.principal import API_KEY, lets_in, principal_of, require_key
from api.edge.problems import Unauthorized
from api.metering.meter import Meter
from api.metering.terms import Entitlement
from configs.plans import Plan

STATE_KEY = "usage"
REPLAYED = b"idempotent-replayed"
PAYMENT_REQUIRED: dict[int | str, dict[str, Any]] = {402: {"description": "The plan or its budget allows no more"}}


class Usage:
    """What one request has used."""

    __slots__ = ("_meter", "_terms", "_units")

    def __init__(self, meter: Meter, terms: Entitlement) -> None:
        self._meter = meter
        self._terms = terms
        self._units = 0

    @property
    def scope(self) -> TenantScope:
        """Whose rows the caller may touch."""
        return TenantScope(self._terms.tenant_id)

    @property
    def plan(self) -> Plan:
        """The plan by which the request is served."""
        return self._terms.plan

    def count(self, units: int = 1) -> None:
        """Add units to what the request costs if it is answered with a 2xx."""
        self._units += units

    def charge(self) -> None:
        """Put the units on the tenant's account, once."""
        units, self._units = self._units, 0
        if units:
            self._meter.count(self._terms, units)


class Metering:
    """ASGI middleware, outside of what replays answers: charges what routes counted, once their answer is a success."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"]

        async def charging(message: Message) -> None:
            begins = message["type"] == "http.response.start"
            if begins and (usage := state.get(STATE_KEY)) is not None and _is_first_success(message):
                usage.charge()
            await send(message)

        await self._app(scope, receive, charging)


def _is_first_success(answer: Message) -> bool:
    return 200 <= answer["status"] < 300 and all(name != REPLAYED for name, _ in answer["headers"])


def use(request: Request, usage: Usage) -> None:
    """Have the request pay for this usage."""
    request.scope["state"][STATE_KEY] = usage


async def metered(request: Request) -> Usage:
    """Admit the request of whoever calls. Raises Unauthorized, QuotaExceeded, TenantGone."""
    meter, tenant_id = _asked(request)
    usage = Usage(meter, await meter.admit(tenant_id))
    use(request, usage)
    return usage


Metered = Annotated[Usage, Depends(metered)]
"""A route's parameter, after that of its credential: 402 where the tenant's budget is spent."""


def metered_key(scope: principal.Scope) -> Callable[[Request], Awaitable[Usage]]:
    """The credential and the metering of a hot route in one dependency: a second would cost a hundredth of it."""

    async def metered_by_key(request: Request) -> Usage:
        require_key(principal_of(request), scope)
        return await metered(request)

    return lets_in(metered_by_key, API_KEY)


MeteredRead = Annotated[Usage, Depends(metered_key("read"))]
"""`ReadKey` and `Metered` in one."""

MeteredWrite = Annotated[Usage, Depends(metered_key("write"))]
"""`WriteKey` and `Metered` in one."""


async def _plan(request: Request) -> Plan:
    meter, tenant_id = _asked(request)
    return (await meter.terms_of(tenant_id)).plan


CurrentPlan = Annotated[Plan, Depends(_plan)]
"""The plan in force of the caller's tenant, as of at most a second ago. A parameter after that of the credential."""


def _asked(request: Request) -> tuple[Meter, str]:
    principal = principal_of(request)
    if principal is None:
        raise Unauthorized
    meter: Meter = request.app.state.meter
    return meter, principal.tenant.id
