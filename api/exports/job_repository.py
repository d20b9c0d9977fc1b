"""Reads and writes the jobs of exports."""

from uuid import UUID, uuid4

from sqlalchemy import func, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.exports.schemas import ExportRequest
from api.exports.tables import ExportJob


class ExportJobRepository:
    """The export jobs of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def hold(self) -> None:
        """Make others who add a job of this tenant wait until the transaction ends."""
        await (await self._session.connection()).execute(text(_HOLD), {"tenant": self._tenant_id})

    async def count(self, *statuses: str) -> int:
        """How many jobs have one of these statuses."""
        statement = select(func.count()).where(
            ExportJob.tenant_id == self._tenant_id, col(ExportJob.status).in_(statuses)
        )
        return int((await self._session.exec(statement)).one())

    async def add(self, user_id: str, request: ExportRequest) -> ExportJob:
        """A new job of this user."""
        job = ExportJob(
            tenant_id=self._tenant_id,
            id=uuid4(),
            user_id=user_id,
            kind=request.kind,
            format=request.format,
            since=request.since,
            until=request.until,
        )
        self._session.add(job)
        await self._session.flush()
        await self._session.refresh(job)
        return job

    async def find(self, id_: UUID) -> ExportJob | None:
        return await self._session.get(ExportJob, (self._tenant_id, id_))

    async def page(self, offset: int, limit: int) -> tuple[list[ExportJob], int]:
        """A page of the jobs, newest first, and how many there are."""
        of_tenant = ExportJob.tenant_id == self._tenant_id
        total = (await self._session.exec(select(func.count()).where(of_tenant))).one()
        order = (col(ExportJob.created_at).desc(), col(ExportJob.id))
        rows = await self._session.exec(select(ExportJob).where(of_tenant).order_by(*order).offset(offset).limit(limit))
        return list(rows), int(total)


_HOLD = "SELECT pg_advisory_xact_lock(hashtextextended('export jobs ' || :tenant, 0))"
