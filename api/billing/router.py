"""`/api/billing`: plans, the tenant's subscription, invoices and cap, and Stripe's webhook."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request

from api.billing import service
from api.billing.events import read_event, receive
from api.billing.gateway import Gateway
from api.billing.running import billing
from api.billing.schemas import (
    AuditEntry,
    CapOut,
    CapRequest,
    CheckoutOut,
    CheckoutRequest,
    InvoiceOut,
    PlanOut,
    PortalOut,
    Received,
    SubscriptionOut,
)
from api.database.session import CurrentDatabase, Session
from api.http.authentication import count_request
from api.http.principal import CurrentAdmin, CurrentUser
from api.http.problems import Problem
from api.http.schemas import Page, Paging


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with billing(app.state.database, app.state.configuration.billing) as app.state.stripe:
        yield


router = APIRouter(prefix="/api/billing", tags=["billing"], lifespan=_lifespan)
_FORBIDDEN: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}}
_CONFLICT: dict[int | str, dict[str, Any]] = {409: {"description": "Conflict"}}
_EVENT = {
    "parameters": [
        {
            "name": "Stripe-Signature",
            "in": "header",
            "required": True,
            "description": "Signature of the body and a time at most five minutes ago, by the webhook's secret",
            "schema": {"type": "string", "maxLength": 1024},
            "example": "t=1736937000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {"id": "evt_1", "object": "event", "type": "invoice.paid", "created": 1736937000},
            }
        },
    },
}


async def _gateway(request: Request) -> Gateway:
    found: Gateway = request.app.state.stripe
    return found


CurrentGateway = Annotated[Gateway, Depends(_gateway)]


@router.get("/plans", summary="List the subscription plans")
async def list_plans() -> list[PlanOut]:
    """The plans that are for sale. Prices are in whole units of the currency."""
    return service.list_plans()


@router.get("/current", summary="Get the tenant's subscription")
async def get_current(user: CurrentUser, session: Session) -> SubscriptionOut:
    """The tenant's subscription. Without one: the plan in force, and the current calendar month as its period."""
    return await service.current(session, user.scope)


@router.post("/checkout", summary="Begin a subscription", responses=_FORBIDDEN | _CONFLICT)
async def begin_checkout(
    body: CheckoutRequest, admin: CurrentAdmin, database: CurrentDatabase, gateway: CurrentGateway
) -> CheckoutOut:
    """A page at Stripe on which to pay. The subscription begins when Stripe says that it was paid."""
    return CheckoutOut(checkout_url=await service.checkout(database, gateway, admin.scope, body))


@router.post("/portal", summary="Change card, plan or subscription", responses=_FORBIDDEN | _CONFLICT)
async def open_portal(admin: CurrentAdmin, database: CurrentDatabase, gateway: CurrentGateway) -> PortalOut:
    """A page at Stripe on which the tenant changes its card or plan, or ends its subscription."""
    return PortalOut(portal_url=await service.portal(database, gateway, admin.scope))


@router.get("/invoices", summary="List the tenant's invoices", responses=_FORBIDDEN)
async def list_invoices(admin: CurrentAdmin, database: CurrentDatabase, gateway: CurrentGateway) -> list[InvoiceOut]:
    """The newest hundred invoices, newest first, as Stripe returns them."""
    return await service.invoices(database, gateway, admin.scope)


@router.put(
    "/overage-cap",
    summary="Set what overage may cost in a cycle",
    responses=_FORBIDDEN | {409: {"description": "More has accrued in this cycle already"}},
)
async def set_overage_cap(body: CapRequest, admin: CurrentAdmin, session: Session) -> CapOut:
    """Past the cap, requests beyond the plan's limit are refused with 402. A new cap takes effect within a second."""
    return await service.set_cap(session, admin.scope, admin.user_id, body.cap_amount)


@router.get("/audit", summary="List changes of plan, cap and subscription", responses=_FORBIDDEN)
async def list_audit(admin: CurrentAdmin, session: Session, page: Paging) -> Page[AuditEntry]:
    """Every change of plan, cap and subscription, newest first."""
    rows, total = await service.audit(session, admin.scope, page)
    return Page(data=rows, total=total, page=page.page, page_size=page.page_size)


@router.post("/webhook", summary="Receive an event of Stripe", openapi_extra=_EVENT)
async def take_event(request: Request, gateway: CurrentGateway) -> Received:
    """An event is stored before it is handled. It is handled once, however often and in whatever order events come."""
    try:
        body = await request.body()
        event = read_event(body, request.headers.get("stripe-signature"), gateway.webhook_secrets())
    except Problem as problem:
        if (refusal := await count_request(request)) is not None:
            raise refusal from problem
        raise
    gateway.require(webhooks=True)
    await receive(request.app.state.database, gateway, event)
    return Received()
