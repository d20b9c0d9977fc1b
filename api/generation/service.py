"""Generation jobs: recommendations for many users at once.

The API writes a job's row; the pipeline does the work and updates the row. Nothing else passes between them.
"""

from datetime import datetime
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.generation.repository import GenerationRepository, JobSpeed
from api.generation.schemas import GenerateRequest, GenerationAccepted, GenerationStatus
from api.generation.tables import GenerationJob
from api.http.problems import NotFound
from api.metering.refusals import generation_refusal
from api.metering.repository import standing_of

DEFAULT_SPEED = JobSpeed(wait_seconds=10.0, user_seconds=0.002)
"""Assumed for a tenant's first job. On two cores a run starts within 10 s; linear families take 1 to 2 ms a user."""


async def generate(
    session: AsyncSession, scope: TenantScope, request: GenerateRequest, now: datetime
) -> GenerationAccepted:
    """Create a job and estimate when it will be done.

    Raises QuotaExceeded where the units of its users and of the jobs that wait exceed what is left of the cycle's
    budget. Concurrent requests of a tenant wait for each other until the transaction ends, so that what is left is
    given once.
    """
    jobs = GenerationRepository(session, scope)
    await jobs.hold()
    # Units of jobs become used units at any moment. In this order they may count twice for that moment, and never not.
    pending = await jobs.units_pending()
    standing = await standing_of(session, scope.tenant_id, now)
    budget = standing.terms.refused_from
    users = await jobs.expected_users(request.user_segment, exactly=budget is not None)
    allowed = None if budget is None else max(0, budget - standing.units - pending)
    if allowed is not None and users > allowed:
        raise generation_refusal(standing.terms, users, allowed)
    speed = await jobs.speed(request.algorithm) or DEFAULT_SPEED
    seconds = speed.wait_seconds + speed.user_seconds * (users + await jobs.users_ahead())
    id_ = await jobs.add(request.algorithm, request.user_segment, request.count, users, allowed)
    return GenerationAccepted(job_id=id_, estimated_completion_ms=round(seconds * 1000))


async def job_status(session: AsyncSession, scope: TenantScope, id_: UUID) -> GenerationStatus:
    """Raises NotFound."""
    job = await GenerationRepository(session, scope).find(id_)
    if job is None:
        raise NotFound("There is no such job")
    return GenerationStatus.model_validate(
        {
            "job_id": job.id,
            "status": job.status,
            "progress": _progress(job),
            "users_total": job.users_total,
            "users_done": job.users_done,
            "recommendations_written": job.recommendations_written,
            "error": job.error,
        }
    )


def _progress(job: GenerationJob) -> float:
    if job.status == "completed":
        return 1.0
    return round(min(1.0, job.users_done / job.users_total), 4) if job.users_total else 0.0
