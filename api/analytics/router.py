"""`/api/analytics`."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.analytics import service
from api.analytics.schemas import Day, Period, Stats
from api.database.session import Session
from api.http.principal import CurrentAdmin

router = APIRouter(prefix="/api/analytics", tags=["analytics"])
_FORBIDDEN: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}}


@router.get("/stats", summary="Statistics of the tenant", responses=_FORBIDDEN)
async def get_stats(admin: CurrentAdmin, session: Session) -> Stats:
    """Totals at this moment, and the accuracy of the models."""
    return await service.stats(session, admin.scope)


@router.get("/data", summary="Statistics day by day", responses=_FORBIDDEN)
async def get_data(
    admin: CurrentAdmin,
    session: Session,
    period: Annotated[Period, Query(description="How far to look back, today included")] = "7d",
) -> list[Day]:
    """One entry per day in UTC, oldest first, today's so far at the end. Days without traffic are zeros."""
    return await service.series(session, admin.scope, period)
