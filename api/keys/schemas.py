"""API keys in requests and responses."""

from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from api.http.principal import SCOPES, Scope
from api.http.schemas import WHOLE, Instant, Schema

Name = Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00]*[^\s\x00-\x1f\x7f-\x9f\ufeff][^\x00]*$")]


class NewKey(Schema):
    name: Name = Field(description="1 to 100 characters, not all of them blank", examples=["shop backend"])
    scopes: list[Scope] = Field(default=list(SCOPES), min_length=1, max_length=10)
    rate_limit: Annotated[int, Field(strict=True, ge=1, le=2_147_483_647), WHOLE] | None = Field(
        default=None, description="Requests a minute; at most the default of keys", examples=[500]
    )


class KeyOut(Schema):
    """An API key, without its secret."""

    id: UUID
    name: str
    scopes: list[Scope]
    rate_limit: int | None = Field(description="Requests a minute; null: the default of keys; 0: no limit")
    prefix: str = Field(description="The first characters of the key", examples=["rk_a1B2c3"])
    created_at: Instant
    last_used_at: Instant | None = Field(description="To within ten seconds")
    revoked_at: Instant | None


class CreatedKey(KeyOut):
    key: str = Field(description="The key itself, which is shown only once")
