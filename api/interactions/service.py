"""Recording interactions. When a call here returns, what it acknowledges is on disk."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.edge.batches import BatchOut, BatchResult, read_rows
from api.edge.problems import NotFound
from api.interactions.repository import Happened, InteractionRepository
from api.interactions.schemas import NewInteraction

UNKNOWN_ITEM = "There is no such item; send `createItem: true` to make it"


async def record(pool: Pool, scope: TenantScope, new: NewInteraction) -> Happened:
    """Store one interaction. Raises NotFound for an item that does not exist, unless it is to be made."""
    repository = InteractionRepository(pool, scope)
    happened = _happened(new)
    if await repository.add(happened):
        return happened
    if not new.create_item:
        raise NotFound(UNKNOWN_ITEM)
    if not await repository.add_all([happened], create=[happened.item_id]):
        raise NotFound("The item was deleted this moment")
    return happened


async def record_all(pool: Pool, scope: TenantScope, rows: list[Any]) -> BatchOut:
    """Each row as `record` would have it: 201, 400 or 404. The good ones are stored in one transaction."""
    valid, results = read_rows(NewInteraction, rows)
    happened = {index: _happened(row) for index, row in valid.items()}
    create = sorted({row.item_id for row in valid.values() if row.create_item})
    stored = set()
    if happened:
        stored = await InteractionRepository(pool, scope).add_all(list(happened.values()), create)
    for index, each in happened.items():
        if each.id in stored:
            results.append(BatchResult(index=index, status=201, id=str(each.id)))
        else:
            results.append(BatchResult(index=index, status=404, error=UNKNOWN_ITEM))
    return BatchOut.of(results)


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
