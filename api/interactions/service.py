"""Recording interactions. When a call here returns, what it acknowledges is on disk."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.batches import BatchOut, BatchResult, read_rows
from api.http.problems import NotFound, QuotaExceeded
from api.interactions.repository import Happened, InteractionRepository, Stored
from api.interactions.schemas import NewInteraction
from api.metering.refusals import item_refusal, user_refusal
from configs.plans import Plan

UNKNOWN_ITEM = "There is no such item; send `createItem: true` to make it"


async def record(pool: Pool, scope: TenantScope, plan: Plan, new: NewInteraction) -> Happened:
    """Store one interaction. Raises NotFound for an item that does not exist, unless it is to be made, and
    QuotaExceeded for a new user or a new item that the plan has no room for.
    """
    repository = InteractionRepository(pool, scope, plan)
    happened = _happened(new)
    if await repository.add(happened):
        return happened
    if not new.create_item and plan.user_limit is None:
        raise NotFound(UNKNOWN_ITEM)
    stored = await repository.add_all([happened], create=[happened.item_id] if new.create_item else [])
    if (refusal := _refusal(plan, stored, happened)) is not None:
        raise refusal
    if not stored.ids:
        raise NotFound("The item was deleted this moment" if new.create_item else UNKNOWN_ITEM)
    return happened


async def record_all(pool: Pool, scope: TenantScope, plan: Plan, rows: list[Any]) -> BatchOut:
    """Each row as `record` would have it: 201, 400, 402 or 404. The good ones are stored in one transaction."""
    valid, results = read_rows(NewInteraction, rows)
    happened = {index: _happened(row) for index, row in valid.items()}
    create = sorted({row.item_id for row in valid.values() if row.create_item})
    if happened:
        stored = await InteractionRepository(pool, scope, plan).add_all(list(happened.values()), create)
        results += [_result(plan, stored, index, each) for index, each in happened.items()]
    return BatchOut.of(results)


def _result(plan: Plan, stored: Stored, index: int, happened: Happened) -> BatchResult:
    if happened.id in stored.ids:
        return BatchResult(index=index, status=201, id=str(happened.id))
    problem = _refusal(plan, stored, happened) or NotFound(UNKNOWN_ITEM)
    return BatchResult(index=index, status=problem.status_code, error=problem.detail)


def _refusal(plan: Plan, stored: Stored, happened: Happened) -> QuotaExceeded | None:
    if happened.item_id in stored.refused_items:
        return item_refusal(plan)
    return user_refusal(plan) if happened.user_id in stored.refused_users else None


def _happened(new: NewInteraction) -> Happened:
    return Happened(
        uuid4(),
        new.user_id,
        new.item_id,
        new.interaction_type,
        new.value,
        new.timestamp or datetime.now(UTC),
        new.recommendation_id,
    )
