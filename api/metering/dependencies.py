"""How requests are metered: a route lets itself be admitted, counts what it did, and pays if its answer is a 2xx."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.types import Message

from api.database.scope import TenantScope
from api.http import principal
from api.http.principal import API_KEY, lets_in, principal_of, require_key
from api.http.problems import Unauthorized
from api.http.requests import ANSWERED
from api.metering.meter import Meter
from api.metering.terms import Entitlement
from configs.plans import Plan

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

    def settle(self, answer: Message) -> None:
        """Put the units on the tenant's account, once, where the answer that begins so is a success and a first one."""
        if self._units and _is_first_success(answer):
            units, self._units = self._units, 0
            self._meter.count(self._terms, units)


def _is_first_success(answer: Message) -> bool:
    return 200 <= answer["status"] < 300 and all(name != REPLAYED for name, _ in answer["headers"])


def use(request: Request, usage: Usage) -> None:
    """Have the request pay for this usage."""
    request.scope["state"][ANSWERED] = usage.settle


async def metered(request: Request) -> Usage:
    """Admit the request of whoever calls. Raises Unauthorized, QuotaExceeded, TenantGone."""
    meter, tenant_id = _asked(request)
    return _begun(request, meter, await meter.admit(tenant_id))


Metered = Annotated[Usage, Depends(metered)]
"""A route's parameter, after that of its credential: 402 where the tenant's budget is spent."""


def metered_key(scope: principal.Scope) -> Callable[[Request], Awaitable[Usage]]:
    """The credential and the metering of a hot route in one dependency: a second would cost a hundredth of it."""

    async def metered_by_key(request: Request) -> Usage:
        key = require_key(principal_of(request), scope)
        return metered_at_once(request, key.tenant.id) or await metered(request)

    return lets_in(metered_by_key, API_KEY)


def metered_at_once(request: Request, tenant_id: str) -> Usage | None:
    """As `metered`; None for a tenant whose standing must be read first."""
    meter: Meter = request.app.state.meter
    terms = meter.admit_at_once(tenant_id)
    return None if terms is None else _begun(request, meter, terms)


def _begun(request: Request, meter: Meter, terms: Entitlement) -> Usage:
    usage = Usage(meter, terms)
    use(request, usage)
    return usage


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
