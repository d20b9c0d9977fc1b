"""`/api/audit`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from pydantic import StringConstraints

from api.audit import service
from api.audit.failures import LoginFailures
from api.audit.repository import AuditFilter
from api.audit.schemas import AuditRecord
from api.database.session import Session
from api.http.origin import RequestOrigin
from api.http.principal import CurrentAdmin
from api.http.schemas import Page, Paging, PlainText, WrittenInstant


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.origin = RequestOrigin(app.state.client_address)
    app.state.login_failures = LoginFailures(app.state.database.pool)
    async with app.state.login_failures.running():
        yield


router = APIRouter(prefix="/api/audit", tags=["audit"], lifespan=_lifespan)
_FORBIDDEN: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}}
_Action = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-z.]+$")]


@router.get("", summary="List the audit trail", responses=_FORBIDDEN)
async def list_audit_trail(
    admin: CurrentAdmin,
    session: Session,
    paging: Paging,
    action: Annotated[
        _Action | None, Query(description="An action, or a group of them: `key`", examples=["key.created"])
    ] = None,
    actor: Annotated[
        PlainText | None, Query(description="Who did it, as entries write it", examples=["user-uuid"])
    ] = None,
    from_: Annotated[WrittenInstant | None, Query(alias="from", description="Entries of this time and later")] = None,
    to: Annotated[WrittenInstant | None, Query(description="Entries before this time")] = None,
) -> Page[AuditRecord]:
    """Logins and failures, API keys, users and roles, plans, caps, settings, segments, erasures and promotions, newest
    first. Entries are kept for 13 months, unless the operator sets another time. Of an erased user, `actor`, `target`
    and `ip` are `erased`."""
    wanted = AuditFilter(action, actor, from_, to)
    data, total = await service.list_entries(session, admin.scope, wanted, paging)
    return Page(data=data, total=total, page=paging.page, page_size=paging.page_size)
