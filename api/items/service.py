"""Creates, reads, changes and deletes items. Each change takes a new version of the catalogue."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

import msgspec
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.http.batches import BatchOut, BatchResult, read_rows
from api.http.problems import Conflict, Invalid, NotFound
from api.http.slices import in_slices, turn
from api.items.repository import ItemRepository, ListedItem, NewItemRow, StoredItem
from api.items.schemas import ItemPatch, ItemReplacement, NewItem
from api.metering.refusals import item_refusal
from configs.plans import Plan
from feature_store.metadata import metadata_problem, size_problem

TAKEN = "There is an item with this id already"


SEARCHES_OF_TENANT = 2
"""Searches of one tenant that run at once in a process. The largest take PostgreSQL seconds of processor time each."""
_searches: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()


async def create_item(session: AsyncSession, scope: TenantScope, plan: Plan, new: NewItem) -> StoredItem:
    """Raises Conflict where the id is taken, and QuotaExceeded at the plan's limit of items."""
    repository = ItemRepository(session, scope)
    version = await repository.next_version()
    added = await repository.add(new.id or str(uuid4()), new.metadata, new.is_active, version)
    if added is None:
        raise Conflict(TAKEN)
    if plan.item_limit is not None and await repository.count() > plan.item_limit:
        raise item_refusal(plan)
    return added


async def create_items(session: AsyncSession, scope: TenantScope, plan: Plan, rows: list[Any]) -> BatchOut:
    """Create many. Each row gets the status that `create_item` would give it: 201, 400, 402 or 409.

    A row is also a conflict where an earlier row of the batch has its id.
    """
    valid, results = await read_rows(NewItem, rows, _new_row)
    first: dict[str, int] = {}
    for index, row in valid.items():
        if row.id in first:
            results.append(BatchResult(index=index, status=409, error=TAKEN))
        else:
            first[row.id] = index
    if first:
        repository = ItemRepository(session, scope)
        version = await repository.next_version()
        refused = await _beyond_limit(repository, plan, list(first))
        new = [valid[index] for id_, index in first.items() if id_ not in refused]
        added = await repository.add_all(new, version)
        async for id_, index in in_slices(first.items()):
            if id_ in added:
                results.append(BatchResult(index=index, status=201, id=id_))
                continue
            problem = item_refusal(plan) if id_ in refused else Conflict(TAKEN)
            results.append(BatchResult(index=index, status=problem.status_code, id=id_, error=problem.detail))
    await turn()
    return BatchOut.of(results)


def _new_row(item: NewItem) -> NewItemRow:
    return NewItemRow(item.id or str(uuid4()), msgspec.json.encode(item.metadata), item.is_active)


async def _beyond_limit(repository: ItemRepository, plan: Plan, ids: list[str]) -> set[str]:
    """The new ids of these, in their order, that are beyond the plan's limit. Other writers of items are waiting."""
    if plan.item_limit is None:
        return set()
    taken = await repository.existing(ids)
    free = max(0, plan.item_limit - await repository.count())
    return set([id_ for id_ in ids if id_ not in taken][free:])


async def get_item(session: AsyncSession, scope: TenantScope, id_: str) -> StoredItem:
    """Raises NotFound."""
    return _found(await ItemRepository(session, scope).find(id_))


async def list_items(
    session: AsyncSession, scope: TenantScope, search: str | None, offset: int, limit: int
) -> tuple[list[ListedItem], int]:
    """A page of the catalogue, inactive items included, and how many items there are in all."""
    if not search:
        return await ItemRepository(session, scope).page(None, offset, limit)
    # The semaphore lives as long as a search of the tenant waits or runs. Nobody holds a connection while waiting.
    turn_of_tenant = _searches.setdefault(scope.tenant_id, asyncio.Semaphore(SEARCHES_OF_TENANT))
    async with turn_of_tenant:
        return await ItemRepository(session, scope).page(search, offset, limit)


async def replace_item(session: AsyncSession, scope: TenantScope, id_: str, item: ItemReplacement) -> StoredItem:
    """Raises NotFound."""
    repository = ItemRepository(session, scope)
    version = await repository.next_version()
    return _found(await repository.replace(id_, item.metadata, item.is_active, version))


async def patch_item(session: AsyncSession, scope: TenantScope, id_: str, patch: ItemPatch) -> StoredItem:
    """Raises NotFound, and Invalid where the merged metadata cannot be stored."""
    repository = ItemRepository(session, scope)
    version = await repository.next_version()  # before the read: other writers then wait until the change is committed
    item = _found(await repository.find(id_))
    metadata = item.metadata
    if patch.metadata:  # metadata that does not change may be larger than what is taken today
        metadata = merge_patch(metadata, patch.metadata)
        if (problem := metadata_problem(metadata) or size_problem(metadata)) is not None:
            raise Invalid.field("metadata", problem)
    active = item.is_active if patch.is_active is None else patch.is_active
    return _found(await repository.replace(id_, metadata, active, version))


async def delete_item(session: AsyncSession, scope: TenantScope, id_: str) -> None:
    """Raises NotFound."""
    repository = ItemRepository(session, scope)
    if not await repository.delete(id_, await repository.next_version()):
        raise NotFound("There is no such item")


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with the patch applied, as RFC 7396 defines it. Neither argument changes.

    >>> merge_patch({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    """
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def _found(item: StoredItem | None) -> StoredItem:
    if item is None:
        raise NotFound("There is no such item")
    return item
