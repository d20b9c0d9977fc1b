"""`/api/items`."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from msgspec import Raw

from api.database.session import Session
from api.http.batches import BatchOut, BatchRoute, count_rows
from api.http.principal import ReadKey, WriteKey
from api.http.schemas import Page, Paging, PathId, PlainText, rfc3339
from api.http.slices import turn
from api.items import service
from api.items.schemas import ItemBatch, ItemOut, ItemPatch, ItemReplacement, NewItem
from api.metering.dependencies import PAYMENT_REQUIRED, CurrentPlan

router = APIRouter(prefix="/api/items", tags=["items"], route_class=BatchRoute)
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "Not Found"}}
_TAKEN: dict[int | str, dict[str, Any]] = {409: {"description": "Conflict"}}


@router.get("", summary="List items", response_model=Page[ItemOut])
async def list_items(
    key: ReadKey,
    session: Session,
    paging: Paging,
    search: Annotated[PlainText | None, Query(description="Full-text search in item metadata")] = None,
) -> Response:
    """The catalogue by id, or the items that match `search`, best first. Inactive items are in the list."""
    found, total = await service.list_items(session, key.scope, search, paging.offset, paging.page_size)
    await turn()
    data = [
        {
            "id": item.id,
            "tenantId": item.tenant_id,
            "metadata": Raw(item.metadata),
            "isActive": item.is_active,
            "createdAt": rfc3339(item.created_at),
            "updatedAt": rfc3339(item.updated_at),
        }
        for item in found
    ]
    page = {"data": data, "total": total, "page": paging.page, "pageSize": paging.page_size}
    return Response(msgspec.json.encode(page), media_type="application/json")


@router.post("", status_code=201, summary="Add an item", responses=_TAKEN | PAYMENT_REQUIRED)
async def create_item(body: NewItem, key: WriteKey, plan: CurrentPlan, session: Session) -> ItemOut:
    """The item may be recommended from the next request on."""
    return ItemOut.model_validate(await service.create_item(session, key.scope, plan, body))


@router.post("/batch", summary="Add up to 1,000 items", response_model=BatchOut)
async def create_items(
    body: ItemBatch, request: Request, key: WriteKey, plan: CurrentPlan, session: Session
) -> Response:
    """One result per row: 201, 400, 402 past the plan's limit, or 409 where the id is taken.

    Valid rows are added even if other rows are refused. In the rate limit each started 50 rows count as one request.
    """
    await count_rows(request, len(body.items))
    return (await service.create_items(session, key.scope, plan, body.items)).response()


@router.get("/{item_id}", summary="Get an item", responses=_NOT_FOUND)
async def get_item(item_id: PathId, key: ReadKey, session: Session) -> ItemOut:
    return ItemOut.model_validate(await service.get_item(session, key.scope, item_id))


@router.put("/{item_id}", summary="Replace an item", responses=_NOT_FOUND)
async def replace_item(item_id: PathId, body: ItemReplacement, key: WriteKey, session: Session) -> ItemOut:
    return ItemOut.model_validate(await service.replace_item(session, key.scope, item_id, body))


@router.patch("/{item_id}", summary="Change parts of an item", responses=_NOT_FOUND)
async def patch_item(item_id: PathId, body: ItemPatch, key: WriteKey, session: Session) -> ItemOut:
    """A JSON merge patch: metadata fields that are null are removed, and those that are not named do not change."""
    return ItemOut.model_validate(await service.patch_item(session, key.scope, item_id, body))


@router.delete("/{item_id}", status_code=204, summary="Delete an item", responses=_NOT_FOUND)
async def delete_item(item_id: PathId, key: WriteKey, session: Session) -> Response:
    """The item is in no answer from now on."""
    await service.delete_item(session, key.scope, item_id)
    return Response(status_code=204)
