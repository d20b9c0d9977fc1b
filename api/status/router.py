"""`GET /api/status`: the releases of the administrator's own tenant."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request

from api.database.session import Session
from api.http.principal import CurrentAdmin
from api.status.schemas import Status
from api.status.service import status
from configs.pipelines import PipelineSettings


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.first_model_after = PipelineSettings().first_model_after
    yield


router = APIRouter(prefix="/api/status", tags=["status"], lifespan=_lifespan)


@router.get("", summary="Releases of the tenant's models", responses={403: {"description": "Forbidden"}})
async def get_status(admin: CurrentAdmin, session: Session, request: Request) -> Status:
    """The release per family and its age. Before the first release: how many interactions are missing."""
    state = request.app.state
    return await status(session, admin.scope, state.serving, state.first_model_after)
