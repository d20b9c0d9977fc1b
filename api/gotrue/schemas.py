"""Requests and responses of GoTrue's routes, in snake_case. Unknown members are ignored, as GoTrue ignores them."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.auth.service import Grant
from api.http.schemas import Instant, PlainText
from api.users.schemas import Email, NewPassword, Password
from api.users.service import too_long
from api.users.tables import User
from feature_store.metadata import metadata_problem


def _storable(metadata: dict[str, Any]) -> dict[str, Any]:
    if (problem := metadata_problem(metadata)) is not None:
        raise ValueError(problem)
    if (problem := too_long(metadata)) is not None:
        raise ValueError(problem)
    return metadata


Metadata = Annotated[dict[str, Any], AfterValidator(_storable), Field(examples=[{"name": "Jane Doe"}])]


class TokenRequest(BaseModel):
    """`grant_type=password` takes `email` and `password`; `grant_type=refresh_token` takes `refresh_token`."""

    email: PlainText | None = Field(default=None, examples=["admin@demo.example"])
    password: Password | None = Field(default=None, examples=["a long password"])
    refresh_token: PlainText | None = None


class SignUp(BaseModel):
    email: Email = Field(examples=["newuser@example.com"])
    password: NewPassword = Field(examples=["a long password"])
    data: Metadata | None = Field(default=None, description="Stored as `user_metadata`; its `name` is the user's name")


class OwnChanges(BaseModel):
    """A change of email or password needs the current password."""

    email: Email | None = Field(default=None, examples=["newuser@example.com"])
    password: NewPassword | None = Field(default=None, examples=["another long password"])
    current_password: Password | None = Field(default=None, examples=["a long password"])
    data: Metadata | None = Field(default=None, description="Merged into `user_metadata`; a null removes")


class GoTrueModel(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="null")


class IdentityOut(GoTrueModel):
    identity_id: str
    id: str
    user_id: str
    identity_data: dict[str, Any]
    provider: str
    created_at: Instant
    updated_at: Instant
    last_sign_in_at: Instant | None


class GoTrueUser(GoTrueModel):
    """A user in GoTrue's form."""

    id: str
    aud: str
    role: str
    email: str | None
    app_metadata: dict[str, Any]
    user_metadata: dict[str, Any]
    identities: list[IdentityOut]
    created_at: Instant
    updated_at: Instant
    last_sign_in_at: Instant | None
    email_confirmed_at: Instant | None
    is_anonymous: bool

    @classmethod
    def of(cls, user: User) -> Self:
        metadata = user.user_metadata if user.name is None else {"name": user.name, **user.user_metadata}
        times = {
            "created_at": user.created_at,
            "updated_at": user.updated_at,
            "last_sign_in_at": user.last_login_at,
        }
        own = user.password_hash is not None
        identity = IdentityOut(
            identity_id=user.id,
            id=user.id,
            user_id=user.id,
            identity_data={"sub": user.id, "email": user.email},
            provider="email",
            **times,
        )
        provider = {"provider": "email", "providers": ["email"]} if own else {}
        return cls(
            id=user.id,
            aud="authenticated",
            role=user.role,
            email=user.email,
            app_metadata={**provider, "tenant_id": user.tenant_id, "role": user.role},
            user_metadata=metadata,
            identities=[identity] if own else [],
            email_confirmed_at=user.email_confirmed_at,
            is_anonymous=False,
            **times,
        )


class TokenOut(GoTrueModel):
    """The tokens of a login, and its user."""

    access_token: str
    token_type: str
    expires_in: int
    expires_at: int = Field(description="seconds since the epoch")
    refresh_token: str
    user: GoTrueUser

    @classmethod
    def of(cls, grant: Grant, seconds: int) -> Self:
        return cls(
            access_token=grant.access.token,
            token_type="bearer",  # noqa: S106
            expires_in=seconds,
            expires_at=grant.access.expires_at,
            refresh_token=grant.refresh_token,
            user=GoTrueUser.of(grant.user),
        )
