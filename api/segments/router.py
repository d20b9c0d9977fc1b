"""`/api/segments`."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from api.database.session import Session
from api.http.principal import CurrentAdmin
from api.http.schemas import Page, Paging
from api.segments import service
from api.segments.schemas import SegmentBody, SegmentOut

router = APIRouter(prefix="/api/segments", tags=["segments"])
_Responses = dict[int | str, dict[str, Any]]
_FORBIDDEN: _Responses = {403: {"description": "Forbidden"}}
_NOT_FOUND: _Responses = _FORBIDDEN | {404: {"description": "Not Found"}}
_TOO_MANY: _Responses = _FORBIDDEN | {409: {"description": "The tenant has 100 segments"}}


@router.get("", summary="List segments", responses=_FORBIDDEN)
async def list_segments(admin: CurrentAdmin, session: Session, paging: Paging) -> Page[SegmentOut]:
    """Segments of users and items, newest first, with their sizes."""
    rows, total = await service.list_segments(session, admin.scope, paging.offset, paging.page_size)
    data = [SegmentOut.model_validate(row) for row in rows]
    return Page(data=data, total=total, page=paging.page, page_size=paging.page_size)


@router.post("", status_code=201, summary="Create a segment", responses=_TOO_MANY)
async def create_segment(body: SegmentBody, admin: CurrentAdmin, session: Session, response: Response) -> SegmentOut:
    """The pipeline finds its members within minutes. Its list is the source `segment:<id>` of
    `GET /api/v1/lists/{source}` and of scenarios."""
    row = await service.create_segment(session, admin.scope, body)
    response.headers["Location"] = f"{router.prefix}/{row.id}"
    return SegmentOut.model_validate(row)


@router.get("/{segment_id:uuid}", summary="Get a segment", responses=_NOT_FOUND)
async def get_segment(segment_id: UUID, admin: CurrentAdmin, session: Session) -> SegmentOut:
    """The segment, and its size when the pipeline last measured it."""
    return SegmentOut.model_validate(await service.get_segment(session, admin.scope, segment_id))


@router.put("/{segment_id:uuid}", summary="Replace a segment", responses=_NOT_FOUND)
async def replace_segment(segment_id: UUID, body: SegmentBody, admin: CurrentAdmin, session: Session) -> SegmentOut:
    """The segment is empty until the pipeline has measured it again."""
    return SegmentOut.model_validate(await service.replace_segment(session, admin.scope, segment_id, body))


@router.delete("/{segment_id:uuid}", status_code=204, summary="Delete a segment", responses=_NOT_FOUND)
async def delete_segment(segment_id: UUID, admin: CurrentAdmin, session: Session) -> Response:
    """Its list is gone at once: a scenario that names it goes on with its fallbacks."""
    await service.delete_segment(session, admin.scope, segment_id)
    return Response(status_code=204)
