"""`/api/auth`: the portal's own login."""

from fastapi import APIRouter, Request

from api.auth.schemas import LoggedIn, Login
from api.auth.service import log_in
from api.database.session import Session
from api.users.schemas import UserOut

router = APIRouter(prefix="/api/auth", tags=["auth"])


@router.post("/login", summary="Log in with an email and a password")
async def login(body: Login, session: Session, request: Request) -> LoggedIn:
    """Answer a token for `Authorization: Bearer`, and the user."""
    state = request.app.state
    user, token = await log_in(session, state.passwords, state.tokens, body.email, body.password)
    return LoggedIn(token=token, user=UserOut.model_validate(user))
