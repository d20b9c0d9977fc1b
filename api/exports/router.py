"""`/api/users/{id}/export`, and `/api/exports`."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from api.database.session import CurrentDatabase, Session
from api.exports import job_service
from api.exports.schemas import ExportOut, ExportRequest, PersonExport
from api.exports.service import begin_export
from api.http.principal import CurrentAdmin
from api.http.schemas import Page, Paging, PathId
from configs.storage import open_storage

router = APIRouter()
_FORBIDDEN: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {**_FORBIDDEN, 404: {"description": "Not Found"}}
_CONFLICT: dict[int | str, dict[str, Any]] = {**_FORBIDDEN, 409: {"description": "Too many exports"}}
_MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_FILE: dict[int | str, dict[str, Any]] = {
    **_NOT_FOUND,
    200: {
        "content": {
            media_type.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}, "example": ""}
            for media_type in _MEDIA_TYPES.values()
        }
    },
}


@router.get(
    "/api/users/{user_id}/export",
    tags=["users"],
    summary="Export what is held on a user",
    responses=_NOT_FOUND,
    response_model=PersonExport,
)
async def export_user(
    user_id: PathId, admin: CurrentAdmin, session: Session, database: CurrentDatabase
) -> StreamingResponse:
    """Everything that the database holds on the user, as one JSON document of any length. A document that ends before
    its closing brace is not whole: the user was erased meanwhile, or the database did not answer."""
    document = await begin_export(session, database.pool, admin.scope, user_id)
    headers = {"Content-Disposition": 'attachment; filename="user.json"'}
    return StreamingResponse(document, media_type="application/json", headers=headers)


@router.post("/api/exports", tags=["exports"], status_code=202, summary="Export rows to a file", responses=_CONFLICT)
async def create_export(body: ExportRequest, admin: CurrentAdmin, session: Session, response: Response) -> ExportOut:
    """Creates a job. The pipeline writes the file: all rows of the kind, of the period, as of one moment.

    The erasure of a user withdraws files that are completed, and begins those anew that are being written.
    """
    created = await job_service.create_export(session, admin, body)
    response.headers["Location"] = f"{job_service.PATH}/{created.id}"
    return created


@router.get("/api/exports", tags=["exports"], summary="List exports", responses=_FORBIDDEN)
async def list_exports(admin: CurrentAdmin, session: Session, paging: Paging) -> Page[ExportOut]:
    """The tenant's exports of the last 30 days, newest first."""
    data, total = await job_service.list_exports(session, admin, paging.offset, paging.page_size)
    return Page(data=data, total=total, page=paging.page, page_size=paging.page_size)


@router.get("/api/exports/{export_id:uuid}", tags=["exports"], summary="Get an export", responses=_NOT_FOUND)
async def get_export(export_id: UUID, admin: CurrentAdmin, session: Session) -> ExportOut:
    """How far the export is, and where its file is once it is completed."""
    return await job_service.get_export(session, admin, export_id)


@router.get(
    "/api/exports/{export_id:uuid}/file",
    tags=["exports"],
    summary="Fetch the file of an export",
    responses=_FILE,
    response_class=FileResponse,
)
async def get_export_file(export_id: UUID, admin: CurrentAdmin, session: Session, request: Request) -> FileResponse:
    """The file, for the administrator who asked for it, until it expires. It is 404 for everybody else."""
    files = open_storage(request.app.state.configuration.paths.exports)
    found = await job_service.exported_file(session, admin, export_id, files)
    return FileResponse(found.path, filename=found.name, media_type=_MEDIA_TYPES[found.format])
