"""Recommendation records: generated in bulk, or shown live to a user who is logged in."""

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.http.principal import UserPrincipal
from api.http.problems import Forbidden, NotFound
from api.recommendations.answers import Recommendations
from api.recommendations.schemas import RecommendRequest
from api.recommendations.service import RecommendationService
from api.records.repository import RecordRepository, StoredRecord


async def list_records(
    session: AsyncSession, scope: TenantScope, user_id: str | None, algorithm: str | None, offset: int, limit: int
) -> tuple[list[StoredRecord], int]:
    """A page of the tenant's records, newest first, and the number of all records."""
    return await RecordRepository(session, scope).page(user_id, algorithm, offset, limit)


async def get_record(session: AsyncSession, user: UserPrincipal, id_: UUID) -> StoredRecord:
    """Raises NotFound, and Forbidden where the record is another user's and the caller is no administrator."""
    record = await RecordRepository(session, user.scope).find(id_)
    if record is None:
        raise NotFound("There is no such recommendation")
    if not user.is_admin and record.user_id != user.user_id:
        raise Forbidden("This recommendation is another user's")
    return record


async def delete_record(session: AsyncSession, scope: TenantScope, id_: UUID) -> None:
    """Raises NotFound."""
    if not await RecordRepository(session, scope).delete(id_):
        raise NotFound("There is no such recommendation")


async def recommend_to(
    session: AsyncSession,
    recommendations: RecommendationService,
    user: UserPrincipal,
    count: int,
    *,
    shown: bool = True,
) -> tuple[list[StoredRecord], Recommendations]:
    """Live recommendations for the caller, with a record of each item. Nothing is recorded unless it is shown."""
    request = RecommendRequest(user_id=user.user_id, count=count)
    outcome = await recommendations.recommend(user.scope, request, None, shown=shown)
    if not shown:
        return [], outcome
    records = await RecordRepository(session, user.scope).add_shown(
        user.user_id,
        outcome.answered_by(request.algorithm),
        outcome.release,
        outcome.recommendation_id,
        outcome.items,
    )
    return records, outcome
