"""`/api/users/{id}/export`."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from api.database.session import CurrentDatabase, Session
from api.exports.schemas import PersonExport
from api.exports.service import begin_export
from api.http.principal import CurrentAdmin
from api.http.schemas import PathId

router = APIRouter(prefix="/api/users", tags=["users"])
_NOT_FOUND: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}, 404: {"description": "Not Found"}}


@router.get(
    "/{user_id}/export", summary="Export what is held on a user", responses=_NOT_FOUND, response_model=PersonExport
)
async def export_user(
    user_id: PathId, admin: CurrentAdmin, session: Session, database: CurrentDatabase
) -> StreamingResponse:
    """Everything that the database holds on the user, as one JSON document of any length. A document that ends before
    its closing brace is not whole: the user was erased meanwhile, or the database did not answer."""
    document = await begin_export(session, database.pool, admin.scope, user_id)
    headers = {"Content-Disposition": 'attachment; filename="user.json"'}
    return StreamingResponse(document, media_type="application/json", headers=headers)
