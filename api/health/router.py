"""`/health` and `/health/ready`: liveness and readiness. Both are public and do not count against rate limits."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from api.database.session import CurrentDatabase
from api.health.schemas import Readiness
from api.health.service import readiness

router = APIRouter(prefix="/health", tags=["health"])


@router.head("", include_in_schema=False)
@router.get("", summary="Is the process alive", response_class=PlainTextResponse)
async def health() -> str:
    return "Healthy"


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    summary="Can it do its work",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "The database is unreachable or not migrated"}},
)
async def ready(request: Request, database: CurrentDatabase) -> Response:
    """A model server that is down leaves the API ready, because the fallback answers in its place."""
    found = await readiness(database, request.app.state.serving)
    return JSONResponse(found.model_dump(mode="json"), 200 if found.is_ready else 503)
