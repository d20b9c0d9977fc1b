"""Exports of a tenant's rows: jobs that administrators create, and their files.

The API writes a job's row and hands the file out; the pipeline writes the file and updates the row.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.service import note_tenant
from api.database.scope import TenantScope
from api.exports.job_repository import ExportJobRepository
from api.exports.schemas import ExportOut, ExportRequest
from api.exports.tables import ExportJob
from api.http.principal import UserPrincipal
from api.http.problems import Conflict, NotFound
from configs.storage import Storage

MAX_WAITING = 5
"""Exports of a tenant that wait or are written."""
MAX_FILES = 20
"""Files that are kept for a tenant, until they expire."""
PATH = "/api/exports"
_SHOWN = (
    *("id", "kind", "format", "since", "until", "rows", "bytes", "error"),
    *("created_at", "finished_at", "expires_at"),
)
_NOT_FOUND = "There is no such export"


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """The file of an export."""

    path: Path
    name: str
    format: str  # `parquet` or `csv`


async def create_export(session: AsyncSession, admin: UserPrincipal, request: ExportRequest) -> ExportOut:
    """Create a job. Raises Conflict where too many wait, or too many files are kept."""
    jobs = ExportJobRepository(session, admin.scope)
    await jobs.hold()
    if await jobs.count("processing") >= MAX_WAITING:
        raise Conflict(f"{MAX_WAITING} exports are being written: wait until one is completed")
    if await jobs.count("processing", "completed") >= MAX_FILES:
        raise Conflict(f"{MAX_FILES} files are kept: wait until one expires")
    job = await jobs.add(admin.user_id, request)
    await _note(session, admin.scope, "export.requested", job)
    return _shown(job, admin)


async def list_exports(
    session: AsyncSession, admin: UserPrincipal, offset: int, limit: int
) -> tuple[list[ExportOut], int]:
    """A page of the tenant's exports, newest first, and how many there are."""
    rows, total = await ExportJobRepository(session, admin.scope).page(offset, limit)
    return [_shown(job, admin) for job in rows], total


async def get_export(session: AsyncSession, admin: UserPrincipal, id_: UUID) -> ExportOut:
    """Raises NotFound."""
    return _shown(await _find(session, admin.scope, id_), admin)


async def exported_file(session: AsyncSession, admin: UserPrincipal, id_: UUID, files: Storage) -> ExportedFile:
    """The file of an export, for who asked for it.

    Raises NotFound for everybody else, before it is completed, and once it is expired or withdrawn.
    """
    job = await _find(session, admin.scope, id_)
    if not _has_file(job, admin):
        raise NotFound("There is no file of this export for you: it is not completed, expired, or another's")
    key = f"tenant={admin.scope.tenant_id}/{job.id}.{job.format}"
    if not await asyncio.to_thread(files.exists, key):
        raise NotFound("The file is gone: ask for a new export")
    await _note(session, admin.scope, "export.downloaded", job)
    path = await asyncio.to_thread(files.local, key)
    return ExportedFile(path, f"{job.kind}-{job.created_at:%Y%m%d-%H%M%S}.{job.format}", job.format)


async def _find(session: AsyncSession, scope: TenantScope, id_: UUID) -> ExportJob:
    job = await ExportJobRepository(session, scope).find(id_)
    if job is None:
        raise NotFound(_NOT_FOUND)
    return job


def _has_file(job: ExportJob, admin: UserPrincipal) -> bool:
    return job.user_id == admin.user_id and _status(job) == "completed"


def _status(job: ExportJob) -> str:
    """An export expires at its time, also before the pipeline deletes the file."""
    is_over = job.expires_at is not None and job.expires_at <= datetime.now(UTC)
    return "expired" if job.status == "completed" and is_over else job.status


def _shown(job: ExportJob, admin: UserPrincipal) -> ExportOut:
    return ExportOut.model_validate(
        {
            **{
                name: getattr(job, name)
                for name in ("id", "kind", "format", "since", "until", "rows", "bytes", "error")
            },
            **{name: getattr(job, name) for name in _SHOWN},
            "status": _status(job),
            "url": f"{PATH}/{job.id}/file" if _has_file(job, admin) else None,
        }
    )


async def _note(session: AsyncSession, scope: TenantScope, action: str, job: ExportJob) -> None:
    await note_tenant(session, scope, action, {"export": str(job.id), "kind": job.kind, "format": job.format})
