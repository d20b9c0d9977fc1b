"""`/api/auth`: the portal's own login."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request

from api.auth.repository import delete_old_failures
from api.auth.schemas import LoggedIn, LoggedInUser, Login, Registration
from api.auth.service import Logins
from api.background import PeriodicTask
from api.database.engine import UNREACHABLE
from api.database.session import Session
from api.http.client import network_of
from api.users.schemas import UserOut

FORGET_SECONDS = 3_600.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async def forget() -> None:
        log.debug("failed logins forgotten", count=await delete_old_failures(app.state.database.pool))

    # The hash of an address, whose user may be erased since, goes also where nobody fails to log in any more.
    async with PeriodicTask(
        "failed logins of before", forget, FORGET_SECONDS, expected=UNREACHABLE, starts_with_pause=False
    ):
        yield


router = APIRouter(prefix="/api/auth", tags=["auth"], lifespan=_lifespan)
_CLOSED: dict[int | str, dict[str, Any]] = {
    403: {"description": "Registration is closed"},
    409: {"description": "The address cannot be used"},
}


async def _logins(request: Request, session: Session) -> Logins:
    state = request.app.state
    network = network_of(state.client_address.of_request(request))
    settings = state.configuration.auth
    return Logins(session, state.database.pool, state.passwords, state.tokens, settings, network, state.login_failures)


CurrentLogins = Annotated[Logins, Depends(_logins)]
"""Logins in the transaction of this request."""


@router.post(
    "/login",
    summary="Log in with an email and a password",
    responses={401: {"description": "The email or the password is wrong"}},
)
async def login(body: Login, logins: CurrentLogins) -> LoggedIn:
    """Answers a token for `Authorization: Bearer`, and the user. Ten wrong passwords delay an account: 429."""
    grant = await logins.log_in(body.email, body.password, refreshable=False)
    return LoggedIn(token=grant.access.token, user=LoggedInUser.model_validate(grant.user))


@router.post("/register", status_code=201, summary="Register with an email and a password", responses=_CLOSED)
async def register(body: Registration, logins: CurrentLogins) -> UserOut:
    """Create a user of the tenant that is open to registration; 403 where no tenant is."""
    return UserOut.model_validate(await logins.register(body.email, body.name, body.password))
