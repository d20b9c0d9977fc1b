"""`/api/analytics`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, FastAPI, Query, Request

from api.analytics import service
from api.analytics.schemas import Day, Period, RecommendationFigures, Stats, WindowHours
from api.analytics.service import AnswerFilter
from api.analytics.turns import CountingTurns
from api.database.session import Session
from api.http.families import FilteredFamily
from api.http.principal import CurrentAdmin
from api.http.schemas import PlainText


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.counting_turns = CountingTurns()
    yield


router = APIRouter(prefix="/api/analytics", tags=["analytics"], lifespan=_lifespan)
_FORBIDDEN: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {**_FORBIDDEN, 404: {"description": "No such scenario or segment"}}


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


@router.get("/recommendations", summary="What came of recommendations", responses=_NOT_FOUND)
async def get_recommendation_figures(
    admin: CurrentAdmin,
    session: Session,
    request: Request,
    period: Annotated[Period, Query(description="How far to look back, today included")] = "7d",
    scenario: Annotated[PlainText | None, Query(description="Only answers of this scenario")] = None,
    family: Annotated[FilteredFamily | None, Query(description="Only answers of this family")] = None,
    release: Annotated[PlainText | None, Query(description="Only answers of this release")] = None,
    segment: Annotated[UUID | None, Query(description="Only answers to users who are in this segment now")] = None,
    window_hours: Annotated[
        WindowHours, Query(alias="windowHours", description="Within which an interaction follows from an answer")
    ] = 24,
) -> RecommendationFigures:
    """How many answers were shown and followed, what was bought, and how varied and quick the answers were, beside the
    same of users who are held out.

    An interaction follows from the answer that it names, otherwise from the last one within the window that showed its
    user the item. `family` and `release` leave the holdout as it is, since no model answers it. Where the figures take
    too long the answer is 503: ask for a shorter period.
    """
    wanted = AnswerFilter(period, window_hours, scenario, family, release, segment)
    return await service.recommendation_figures(session, admin.scope, wanted, request.app.state.counting_turns)
