"""The rows of segments."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.segments.tables import SegmentRow, SegmentUser
from api.tenants.tables import Tenant


class SegmentRepository:
    """The segments of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def lock_and_count(self) -> int:
        """How many segments the tenant has. Until the transaction ends, no other adds one."""
        await self._session.exec(select(Tenant.id).where(Tenant.id == self._tenant_id).with_for_update(key_share=True))
        counted = select(func.count()).where(col(SegmentRow.tenant_id) == self._tenant_id)
        return (await self._session.exec(counted)).one()

    async def page(self, offset: int, limit: int) -> tuple[Sequence[SegmentRow], int]:
        """A page of segments, newest first, and the total."""
        own = col(SegmentRow.tenant_id) == self._tenant_id
        total = (await self._session.exec(select(func.count()).select_from(SegmentRow).where(own))).one()
        order = (col(SegmentRow.created_at).desc(), col(SegmentRow.id))
        statement = select(SegmentRow).where(own).order_by(*order).offset(offset).limit(limit)
        return (await self._session.exec(statement)).all(), total

    async def find(self, segment_id: UUID) -> SegmentRow | None:
        return await self._session.get(SegmentRow, (self._tenant_id, segment_id))

    async def add(self, segment: SegmentRow) -> None:
        self._session.add(segment)
        await self._session.flush()
        await self._session.refresh(segment)

    async def replace(self, segment_id: UUID, written: dict[str, Any]) -> SegmentRow | None:
        """Change a segment and return it; None where the tenant has none of this id. It is unmeasured afterwards."""
        statement = (
            update(SegmentRow)
            .where(col(SegmentRow.tenant_id) == self._tenant_id, col(SegmentRow.id) == segment_id)
            .values(**written, size=None, measured_at=None, updated_at=func.clock_timestamp())
            .returning(SegmentRow)
        )
        return (await self._session.exec(statement)).scalar_one_or_none()

    async def delete_members(self, segment_id: UUID) -> None:
        own = (col(SegmentUser.tenant_id) == self._tenant_id, col(SegmentUser.segment_id) == segment_id)
        await self._session.exec(delete(SegmentUser).where(*own))

    async def delete(self, segment_id: UUID) -> bool:
        """Delete a segment with its members. Returns whether there was one."""
        own = (col(SegmentRow.tenant_id) == self._tenant_id, col(SegmentRow.id) == segment_id)
        return bool((await self._session.exec(delete(SegmentRow).where(*own))).rowcount)
