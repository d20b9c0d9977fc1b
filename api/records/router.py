"""`/api/recommendations`: recommendation records, and live recommendations for the caller."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api.database.session import Session
from api.http.families import FilteredFamily
from api.http.principal import CurrentAdmin, CurrentUser
from api.http.schemas import OpaqueId, Page, Paging
from api.metering.dependencies import PAYMENT_REQUIRED, Metered
from api.recommendations.router import ANSWER_HEADERS, CurrentRecommendations, answer_headers
from api.records import service
from api.records.schemas import RecordOut, ShownOut

router = APIRouter(prefix="/api/recommendations", tags=["recommendations"])
_FORBIDDEN: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "Not Found"}}


@router.get("", summary="List recommendations", responses=_FORBIDDEN)
async def list_recommendations(
    admin: CurrentAdmin,
    session: Session,
    paging: Paging,
    user_id: Annotated[OpaqueId | None, Query(alias="userId", description="Only those of this user")] = None,
    algorithm: Annotated[
        FilteredFamily | None,
        Query(description="Only records for which this family was requested; `popularity`: those of fallbacks"),
    ] = None,
) -> Page[RecordOut]:
    """Records of what was generated or shown, newest first. Inactive and deleted items are left out."""
    found, total = await service.list_records(session, admin.scope, user_id, algorithm, paging.offset, paging.page_size)
    data = [RecordOut.model_validate(record) for record in found]
    return Page[RecordOut](data=data, total=total, page=paging.page, page_size=paging.page_size)


@router.get("/my", summary="Get recommendations for oneself", responses=ANSWER_HEADERS | PAYMENT_REQUIRED)
async def my_recommendations(
    user: CurrentUser,
    usage: Metered,
    session: Session,
    recommendations: CurrentRecommendations,
    response: Response,
    page: Annotated[int, Query(ge=1, le=1_000_000, description="Only the first page has results")] = 1,
    page_size: Annotated[
        int, Query(alias="pageSize", ge=1, le=100, description="Number of recommendations wanted")
    ] = 10,
) -> Page[ShownOut]:
    """Live recommendations for the token's user, by the tenant's `hybrid` model. What is shown is recorded."""
    shown, outcome = await service.recommend_to(session, recommendations, user, page_size, shown=page == 1)
    usage.count()
    response.headers.update(answer_headers(outcome))
    data = [ShownOut.model_validate(record) for record in shown]
    total = len(data) if page == 1 else len(outcome.items)
    return Page[ShownOut](data=data, total=total, page=page, page_size=page_size)


@router.get("/{recommendation_id:uuid}", summary="Get a recommendation", responses=_FORBIDDEN | _NOT_FOUND)
async def get_recommendation(recommendation_id: UUID, user: CurrentUser, session: Session) -> RecordOut:
    """Administrators may get any record of the tenant, others only their own."""
    return RecordOut.model_validate(await service.get_record(session, user, recommendation_id))


@router.delete(
    "/{recommendation_id:uuid}",
    status_code=204,
    summary="Delete a recommendation",
    responses=_FORBIDDEN | _NOT_FOUND,
)
async def delete_recommendation(recommendation_id: UUID, admin: CurrentAdmin, session: Session) -> Response:
    """Deletes the record. The analytics still count what was shown."""
    await service.delete_record(session, admin.scope, recommendation_id)
    return Response(status_code=204)
