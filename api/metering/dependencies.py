"""Metering of requests, as dependencies of routes.

A metered request is admitted if the tenant's budget allows it. The route counts the units of what it did, and they are
added to the tenant's usage if the response is a 2xx.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.types import Message

from api.database.scope import TenantScope
from api.http import principal
from api.http.principal import API_KEY, principal_of, require_key, requires_scheme
from api.http.problems import Unauthorized
from api.http.requests import ON_RESPONSE_START
from api.metering.meter import Meter
from api.metering.terms import Entitlement
from configs.plans import Plan

REPLAYED = b"idempotent-replayed"
PAYMENT_REQUIRED: dict[int | str, dict[str, Any]] = {402: {"description": "The plan or its budget allows no more"}}


class MeteredRequest:
    """The units of one request."""

    __slots__ = ("_meter", "_terms", "_units")

    def __init__(self, meter: Meter, terms: Entitlement) -> None:
        self._meter = meter
        self._terms = terms
        self._units = 0

    @property
    def scope(self) -> TenantScope:
        """The tenant whose rows the caller may read and write."""
        return TenantScope(self._terms.tenant_id)

    @property
    def plan(self) -> Plan:
        """The tenant's plan in force."""
        return self._terms.plan

    def count(self, units: int = 1) -> None:
        """Add units to what the request costs if its response is a 2xx."""
        self._units += units

    def settle(self, answer: Message) -> None:
        """Add the units to the tenant's usage, once, if the response is a 2xx and not an idempotent replay.

        answer: the ASGI message that starts the response.
        """
        if self._units and _is_first_success(answer):
            units, self._units = self._units, 0
            self._meter.count(self._terms, units)


def _is_first_success(answer: Message) -> bool:
    return 200 <= answer["status"] < 300 and all(name != REPLAYED for name, _ in answer["headers"])


def meter_request(request: Request, usage: MeteredRequest) -> None:
    """Meter the request: its units are added when the response starts."""
    request.scope["state"][ON_RESPONSE_START] = usage.settle


async def metered(request: Request) -> MeteredRequest:
    """Admit the caller's request. Raises Unauthorized, QuotaExceeded, TenantGone."""
    meter, tenant_id = _caller(request)
    return _start(request, meter, await meter.admit(tenant_id))


Metered = Annotated[MeteredRequest, Depends(metered)]
"""A parameter of a route, after that of its credential: 402 where the tenant's budget is spent."""


def metered_key(scope: principal.Scope) -> Callable[[Request], Awaitable[MeteredRequest]]:
    """Credential and metering in one dependency, for the busiest routes: a second dependency costs 1 % of a request."""

    async def metered_by_key(request: Request) -> MeteredRequest:
        key = require_key(principal_of(request), scope)
        return meter_without_waiting(request, key.tenant.id) or await metered(request)

    return requires_scheme(metered_by_key, API_KEY)


def meter_without_waiting(request: Request, tenant_id: str) -> MeteredRequest | None:
    """As `metered`, without waiting. Returns None where the tenant's usage must be read from the database first."""
    meter: Meter = request.app.state.meter
    terms = meter.admit_without_waiting(tenant_id)
    return None if terms is None else _start(request, meter, terms)


def _start(request: Request, meter: Meter, terms: Entitlement) -> MeteredRequest:
    usage = MeteredRequest(meter, terms)
    meter_request(request, usage)
    return usage


metered_read, metered_write = metered_key("read"), metered_key("write")
"""The dependencies of `MeteredRead` and `MeteredWrite`, which direct routes call."""

MeteredRead = Annotated[MeteredRequest, Depends(metered_read)]
"""`ReadKey` and `Metered` in one."""

MeteredWrite = Annotated[MeteredRequest, Depends(metered_write)]
"""`WriteKey` and `Metered` in one."""


async def _plan(request: Request) -> Plan:
    meter, tenant_id = _caller(request)
    return (await meter.terms_of(tenant_id)).plan


CurrentPlan = Annotated[Plan, Depends(_plan)]
"""The plan in force of the caller's tenant, at most a second old. A parameter of a route, after its credential's."""


def _caller(request: Request) -> tuple[Meter, str]:
    principal = principal_of(request)
    if principal is None:
        raise Unauthorized
    meter: Meter = request.app.state.meter
    return meter, principal.tenant.id
