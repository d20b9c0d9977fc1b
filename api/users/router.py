"""`/api/users`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response

from api.database.session import Session
from api.erasure.journal import ErasureJournal
from api.http.principal import CurrentAdmin, CurrentUser
from api.http.schemas import Page, Paging, PathId, PlainText
from api.metering.dependencies import PAYMENT_REQUIRED, CurrentPlan
from api.users import service
from api.users.schemas import NewUser, UserChanges, UserOut


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    configuration = app.state.configuration
    app.state.erasures = ErasureJournal(configuration.paths, configuration.journal)
    async with app.state.erasures.copied(app.state.database.pool):
        yield


router = APIRouter(prefix="/api/users", tags=["users"], lifespan=_lifespan)
_Responses = dict[int | str, dict[str, Any]]
_FORBIDDEN: _Responses = {403: {"description": "Forbidden"}}
_NOT_FOUND: _Responses = _FORBIDDEN | {404: {"description": "Not Found"}}
_CONFLICT: _Responses = {409: {"description": "The address or id is taken, or it is the tenant's last active admin"}}


@router.get("", summary="List users", responses=_FORBIDDEN)
async def list_users(
    admin: CurrentAdmin,
    session: Session,
    paging: Paging,
    search: Annotated[PlainText | None, Query(description="Part of an id, email or name")] = None,
) -> Page[UserOut]:
    """The tenant's portal users and end users, ordered by id."""
    found, total = await service.list_users(session, admin.scope, search, paging.offset, paging.page_size)
    data = [UserOut.model_validate(user) for user in found]
    return Page[UserOut](data=data, total=total, page=paging.page, page_size=paging.page_size)


@router.post("", status_code=201, summary="Create a user", responses=_FORBIDDEN | _CONFLICT | PAYMENT_REQUIRED)
async def create_user(
    body: NewUser, admin: CurrentAdmin, plan: CurrentPlan, session: Session, request: Request
) -> UserOut:
    """A user with a password can log in, and its email must be unique among all users who can. A user without one is an
    end user, and counts towards the plan's limit."""
    user = await service.create_user(session, request.app.state.passwords, admin.scope, body, plan)
    return UserOut.model_validate(user)


@router.get("/{user_id}", summary="Get a user", responses=_NOT_FOUND)
async def get_user(user_id: PathId, user: CurrentUser, session: Session) -> UserOut:
    """Administrators may get any user, others only themselves."""
    return UserOut.model_validate(await service.see_user(session, user, user_id))


@router.put("/{user_id}", summary="Update a user", responses=_NOT_FOUND | _CONFLICT)
async def update_user(
    user_id: PathId, body: UserChanges, admin: CurrentAdmin, session: Session, request: Request
) -> UserOut:
    """Attributes that are left out do not change. A new password, role or activity revokes refresh tokens."""
    return UserOut.model_validate(
        await service.update_user(session, request.app.state.passwords, admin.scope, user_id, body)
    )


@router.delete("/{user_id}", status_code=204, summary="Delete a user", responses=_NOT_FOUND | _CONFLICT)
async def delete_user(user_id: PathId, admin: CurrentAdmin, session: Session, request: Request) -> Response:
    """Delete the user and all data about it."""
    await service.delete_user(session, admin.scope, user_id, request.app.state.erasures)
    return Response(status_code=204)


@router.patch("/{user_id}/toggle-status", summary="Switch a user off or on", responses=_NOT_FOUND | _CONFLICT)
async def toggle_status(user_id: PathId, admin: CurrentAdmin, session: Session) -> UserOut:
    """A user who is deactivated is logged out within 5 seconds."""
    return UserOut.model_validate(await service.toggle_status(session, admin.scope, user_id))
