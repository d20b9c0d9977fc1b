"""External identity providers whose tokens the API accepts."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

MIN_SECRET_BYTES = 32


class ExternalIssuer(BaseModel):
    """A GoTrue server, or a compatible one, and the tenants whose users its tokens may name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1, description="the exact `iss` of its tokens")
    audience: str = Field(default="authenticated", min_length=1)
    algorithms: tuple[Literal["HS256", "RS256", "ES256"], ...] = Field(min_length=1)
    key: SecretStr | None = Field(default=None, description="HS256: the shared secret; otherwise a public key in PEM")
    jwks_url: str | None = Field(default=None, pattern=r"^https?://", description="the URL of its public keys")
    tenants: tuple[str, ...] = Field(min_length=1, description="the allowed values of `app_metadata.tenant_id`")

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> Self:
        if (self.key is None) == (self.jwks_url is None):
            raise ValueError("give either `key` or `jwks_url`")
        if "HS256" in self.algorithms:
            # If a public key were accepted as an HS256 secret, everybody who knows it could sign tokens.
            if set(self.algorithms) != {"HS256"}:
                raise ValueError("HS256 excludes other algorithms: its key is a secret, theirs are public")
            if self.key is None or len(self.key.get_secret_value().encode()) < MIN_SECRET_BYTES:
                raise ValueError(f"HS256 takes a `key` of at least {MIN_SECRET_BYTES} bytes")
        return self
