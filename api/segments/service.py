"""Makes, changes and deletes segments. The pipeline finds their members (`feature_store/segments.py`)."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.service import note_tenant
from api.database.scope import TenantScope
from api.http.problems import Conflict, NotFound
from api.lists.repository import delete_lists
from api.segments.repository import SegmentRepository
from api.segments.schemas import SegmentBody
from api.segments.tables import SegmentRow
from feature_store.columns import SEGMENT_LIST

MAX_SEGMENTS = 100
"""Segments of a tenant."""


async def list_segments(
    session: AsyncSession, scope: TenantScope, offset: int, limit: int
) -> tuple[Sequence[SegmentRow], int]:
    """A page of the tenant's segments, newest first, and the total."""
    return await SegmentRepository(session, scope).page(offset, limit)


async def get_segment(session: AsyncSession, scope: TenantScope, segment_id: UUID) -> SegmentRow:
    """Raises NotFound where the tenant has no such segment."""
    return _found(await SegmentRepository(session, scope).find(segment_id))


async def create_segment(session: AsyncSession, scope: TenantScope, body: SegmentBody) -> SegmentRow:
    """Raises Conflict where the tenant has `MAX_SEGMENTS`."""
    repository = SegmentRepository(session, scope)
    if await repository.lock_and_count() >= MAX_SEGMENTS:
        raise Conflict(f"A tenant has at most {MAX_SEGMENTS} segments: delete one first")
    row = SegmentRow(tenant_id=scope.tenant_id, id=uuid4(), **_columns(body))
    await repository.add(row)
    await note_tenant(session, scope, "segment.created", _detail(row.id, body))
    return row


async def replace_segment(session: AsyncSession, scope: TenantScope, segment_id: UUID, body: SegmentBody) -> SegmentRow:
    """Replace a segment. It has no members until the pipeline has measured it again.

    Raises NotFound where the tenant has no such segment.
    """
    repository = SegmentRepository(session, scope)
    row = _found(await repository.replace(segment_id, _columns(body)))
    await repository.delete_members(segment_id)
    await delete_lists(session, scope, f"{SEGMENT_LIST}{segment_id}")
    await note_tenant(session, scope, "segment.changed", _detail(segment_id, body))
    return row


async def delete_segment(session: AsyncSession, scope: TenantScope, segment_id: UUID) -> None:
    """Delete a segment, its members and its list. Raises NotFound where the tenant has no such segment."""
    if not await SegmentRepository(session, scope).delete(segment_id):
        raise NotFound("There is no such segment")
    await delete_lists(session, scope, f"{SEGMENT_LIST}{segment_id}")
    await note_tenant(session, scope, "segment.deleted", {"segment": str(segment_id)})


def _found(row: SegmentRow | None) -> SegmentRow:
    if row is None:
        raise NotFound("There is no such segment")
    return row


def _columns(body: SegmentBody) -> dict[str, Any]:
    behaviour = None if body.behaviour is None else body.behaviour.model_dump(mode="json", by_alias=True)
    return {"name": body.name, "kind": body.kind, "filter": body.filter, "behaviour": behaviour}


def _detail(segment_id: UUID, body: SegmentBody) -> dict[str, Any]:
    """What the audit trail says. It holds no text that people write, such as the name."""
    return {"segment": str(segment_id), "kind": body.kind}
