"""`/api/recommendations/generate`, and its jobs."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from api.database.session import Session
from api.generation import service
from api.generation.schemas import GenerateRequest, GenerationAccepted, GenerationStatus
from api.http.principal import CurrentAdmin
from api.metering.dependencies import PAYMENT_REQUIRED, Metered
from api.metering.meter import Meter

router = APIRouter(prefix="/api/recommendations", tags=["recommendations"])
_FORBIDDEN: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "Not Found"}}


@router.post(
    "/generate",
    status_code=202,
    summary="Generate recommendations for many users",
    responses=_FORBIDDEN | PAYMENT_REQUIRED,
)
async def generate(
    body: GenerateRequest, admin: CurrentAdmin, _: Metered, session: Session, request: Request, response: Response
) -> GenerationAccepted:
    """Creates a job. The pipeline scores the segment's users and writes a record for each recommendation.

    The job costs one unit for each user who is scored, counted while it runs. It is refused with 402 where its users
    and those of the jobs that wait need more units than are left, and fails where that is so when it starts.
    """
    meter: Meter = request.app.state.meter
    await meter.flush()
    accepted = await service.generate(session, admin.scope, body, meter.now())
    response.headers["Location"] = f"{router.prefix}/jobs/{accepted.job_id}"
    return accepted


@router.get(
    "/jobs/{job_id:uuid}",
    summary="Get a generation job",
    response_model_exclude_none=True,
    responses=_FORBIDDEN | _NOT_FOUND,
)
async def get_job(job_id: UUID, admin: CurrentAdmin, session: Session) -> GenerationStatus:
    """The progress of the job, and why it failed if it did."""
    return await service.job_status(session, admin.scope, job_id)
