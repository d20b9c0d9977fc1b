"""`/auth/v1`: the routes that clients of GoTrue (Supabase Auth) call, over the same logins as `/api/auth`."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from api.auth.router import CurrentLogins
from api.auth.service import Logins, LogoutScope
from api.gotrue.errors import PREFIX, GoTrueRoute
from api.gotrue.schemas import GoTrueUser, OwnChanges, SignUp, TokenOut, TokenRequest
from api.http.principal import CurrentUser
from api.http.problems import Invalid

router = APIRouter(prefix=PREFIX, tags=["auth"], route_class=GoTrueRoute)
_Responses = dict[int | str, dict[str, Any]]
_REFUSED: _Responses = {422: {"description": "GoTrue's `user_already_exists`, `email_exists` or `weak_password`"}}
_CLOSED: _Responses = {403: {"description": "Registration is closed"}}
_ELSEWHERE: _Responses = {403: {"description": "The account is managed by the issuer of its token"}}


def _token(logins: Logins, grant: Any) -> TokenOut:
    return TokenOut.of(grant, logins.settings.token_seconds)


@router.post("/token", summary="Get an access token by password or refresh token")
async def token(
    body: TokenRequest, logins: CurrentLogins, grant_type: Annotated[Literal["password", "refresh_token"], Query()]
) -> TokenOut:
    """A refresh token can be used once. Used again within 10 seconds, it gives the same tokens; later its session ends,
    and so do all tokens of the session."""
    if grant_type == "refresh_token":
        if body.refresh_token is None:
            raise Invalid.field("refresh_token", "required")
        return _token(logins, await logins.refresh(body.refresh_token))
    if body.email is None or body.password is None:
        raise Invalid.field("email" if body.email is None else "password", "required")
    return _token(logins, await logins.log_in(body.email, body.password, refreshable=True))


@router.post("/signup", summary="Sign up", responses=_REFUSED | _CLOSED)
async def sign_up(body: SignUp, logins: CurrentLogins) -> TokenOut:
    """Create a user of the tenant that is open to registration, and log in."""
    return _token(logins, await logins.sign_up(body.email, body.password, body.data or {}))


@router.get("/user", summary="Get one's own user")
async def get_own(user: CurrentUser, logins: CurrentLogins) -> GoTrueUser:
    return GoTrueUser.of(await logins.user_of(user))


@router.put("/user", summary="Change one's own user", responses=_REFUSED | _ELSEWHERE)
async def change_own(body: OwnChanges, user: CurrentUser, logins: CurrentLogins) -> GoTrueUser:
    """A new password revokes all refresh tokens of the user and ends its other sessions."""
    changed = await logins.change_own(user, body.current_password, body.email, body.password, body.data)
    return GoTrueUser.of(changed)


@router.post("/logout", status_code=204, summary="Log out", responses=_ELSEWHERE)
async def log_out(
    user: CurrentUser, logins: CurrentLogins, scope: Annotated[LogoutScope, Query()] = "global"
) -> Response:
    """End all sessions, only this one, or all others. Their tokens are refused after 5 seconds at most."""
    await logins.log_out(user, scope)
    return Response(status_code=204)
