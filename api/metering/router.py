"""`GET /api/billing/usage`."""

from fastapi import APIRouter, Request

from api.database.session import Session
from api.http.principal import CurrentUser
from api.metering import service
from api.metering.meter import Meter
from api.metering.schemas import UsageOut

router = APIRouter(prefix="/api/billing", tags=["billing"])


@router.get("/usage", summary="Get the usage of this billing cycle")
async def usage(user: CurrentUser, session: Session, request: Request) -> UsageOut:
    """What this process has counted is in it, what others have counted is within a second."""
    meter: Meter = request.app.state.meter
    await meter.flush()
    return await service.usage_of(session, user.scope, meter.now())
