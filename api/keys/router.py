"""`/api/keys`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from api.database.session import Session
from api.http.principal import CurrentAdmin
from api.http.schemas import Page, Paging
from api.idempotency.middleware import unrecorded_fields
from api.keys import service
from api.keys.journal import RevocationJournal
from api.keys.schemas import CreatedKey, KeyOut, NewKey
from api.keys.tables import ApiKey


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    configuration = app.state.configuration
    app.state.revocations = RevocationJournal(configuration.paths, configuration.journal)
    async with app.state.revocations.copied():
        yield


router = APIRouter(prefix="/api/keys", tags=["keys"], lifespan=_lifespan)
_Responses = dict[int | str, dict[str, Any]]
_FORBIDDEN: _Responses = {403: {"description": "Forbidden"}}
_NOT_FOUND: _Responses = _FORBIDDEN | {404: {"description": "Not Found"}}
_TOO_MANY: _Responses = {409: {"description": "The tenant has 20 live keys"}}

_SHOWN_ONCE = [Depends(unrecorded_fields("key"))]


def _created(created: tuple[ApiKey, str]) -> CreatedKey:
    row, key = created
    return CreatedKey(**KeyOut.model_validate(row).model_dump(), key=key)


@router.get("", summary="List API keys", responses=_FORBIDDEN)
async def list_keys(admin: CurrentAdmin, session: Session, paging: Paging) -> Page[KeyOut]:
    """Live keys come before revoked ones, the newest first."""
    found, total = await service.list_keys(session, admin.scope, paging.offset, paging.page_size)
    data = [KeyOut.model_validate(key) for key in found]
    return Page[KeyOut](data=data, total=total, page=paging.page, page_size=paging.page_size)


@router.post(
    "", status_code=201, summary="Create an API key", responses=_FORBIDDEN | _TOO_MANY, dependencies=_SHOWN_ONCE
)
async def create_key(body: NewKey, admin: CurrentAdmin, session: Session, request: Request) -> CreatedKey:
    """Only this response shows the key. A tenant has at most 20 live keys."""
    allowed = request.app.state.configuration.limits.per_key
    service.check_rate_limit(body.rate_limit, allowed)
    return _created(await service.create_key(session, admin.scope, body.name, body.scopes, body.rate_limit))


@router.post(
    "/{key_id}/rotate", summary="Replace an API key by a new one", responses=_NOT_FOUND, dependencies=_SHOWN_ONCE
)
async def rotate_key(key_id: UUID, admin: CurrentAdmin, session: Session, request: Request) -> CreatedKey:
    """Id, name, scopes and limit stay the same. The old key is refused after 5 seconds at most."""
    return _created(await service.rotate_key(session, admin.scope, key_id, request.app.state.revocations))


@router.delete("/{key_id}", status_code=204, summary="Revoke an API key", responses=_NOT_FOUND)
async def revoke_key(key_id: UUID, admin: CurrentAdmin, session: Session, request: Request) -> Response:
    """The key is refused after 5 seconds at most, and cannot be restored."""
    await service.revoke_key(session, admin.scope, key_id, request.app.state.revocations)
    return Response(status_code=204)
