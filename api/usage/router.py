"""`GET /api/billing/usage`: what a tenant has used of its plan in this billing cycle."""

from fastapi import APIRouter, Request

from api.database.session import Session
from api.http.principal import CurrentUser
from api.metering.meter import Meter
from api.usage import service
from api.usage.schemas import UsageOut

router = APIRouter(prefix="/api/billing", tags=["billing"])


@router.get("/usage", summary="Get the usage of this billing cycle")
async def usage(user: CurrentUser, session: Session, request: Request) -> UsageOut:
    """Includes every request that this process has counted. Other processes report theirs within a second."""
    meter: Meter = request.app.state.meter
    await meter.flush()
    return await service.usage_of(session, user.scope, meter.now())
