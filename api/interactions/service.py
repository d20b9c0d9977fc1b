"""Records interactions. When a call here returns, the interactions are committed."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.batches import BatchOut, BatchResult, read_rows
from api.http.problems import NotFound, QuotaExceeded
from api.http.slices import in_slices, turn
from api.interactions.bodies import InteractionBody
from api.interactions.repository import InteractionRepository, InteractionRow, StoreResult
from api.interactions.schemas import NewInteraction
from api.metering.refusals import item_refusal, user_refusal
from configs.plans import Plan

UNKNOWN_ITEM = "There is no such item; send `createItem: true` to make it"


async def record(pool: Pool, scope: TenantScope, plan: Plan, new: NewInteraction | InteractionBody) -> InteractionRow:
    """Store one interaction.

    Raises NotFound for an item that does not exist and is not to be created, and QuotaExceeded for a new user or a new
    item beyond the plan's limit.
    """
    repository = InteractionRepository(pool, scope, plan)
    row = _row(new)
    if await repository.add(row):
        return row
    if not new.create_item and plan.user_limit is None:
        raise NotFound(UNKNOWN_ITEM)
    stored = await repository.add_all([row], create=[row.item_id] if new.create_item else [])
    if (refusal := _refusal(plan, stored, row)) is not None:
        raise refusal
    if not stored.ids:
        raise NotFound("The item was deleted this moment" if new.create_item else UNKNOWN_ITEM)
    return row


async def record_all(pool: Pool, scope: TenantScope, plan: Plan, rows: list[Any]) -> BatchOut:
    """Store many. Each row gets the status that `record` would give it: 201, 400, 402 or 404.

    The good rows are stored in one transaction.
    """
    valid, results = await read_rows(NewInteraction, rows, lambda new: (_row(new), new.create_item))
    new_rows = {index: row for index, (row, _) in valid.items()}
    create = sorted({row.item_id for row, create_item in valid.values() if create_item})
    if new_rows:
        stored = await InteractionRepository(pool, scope, plan).add_all(list(new_rows.values()), create)
        results += [_result(plan, stored, index, row) async for index, row in in_slices(new_rows.items())]
        await turn()
    return BatchOut.of(results)


def _result(plan: Plan, stored: StoreResult, index: int, row: InteractionRow) -> BatchResult:
    if row.id in stored.ids:
        return BatchResult(index=index, status=201, id=str(row.id))
    problem = _refusal(plan, stored, row) or NotFound(UNKNOWN_ITEM)
    return BatchResult(index=index, status=problem.status_code, error=problem.detail)


def _refusal(plan: Plan, stored: StoreResult, row: InteractionRow) -> QuotaExceeded | None:
    if row.item_id in stored.refused_items:
        return item_refusal(plan)
    return user_refusal(plan) if row.user_id in stored.refused_users else None


def _row(new: NewInteraction | InteractionBody) -> InteractionRow:
    return InteractionRow(
        uuid4(),
        new.user_id,
        new.item_id,
        new.interaction_type,
        new.value,
        new.timestamp or datetime.now(UTC),
        new.recommendation_id,
    )
