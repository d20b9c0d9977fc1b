"""External identity providers whose tokens the API accepts."""

from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

MIN_SECRET_BYTES = 32


def _secure(url: str) -> str:
    """The URL, which nobody between can change what is read from. Raises ValueError for another."""
    parts = urlsplit(url)
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url or not parts.hostname:
        raise ValueError("must be a URL such as https://auth.example/auth/v1")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("must begin with https:// (http:// is for loopback addresses of this machine only)")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


SecureUrl = Annotated[str, AfterValidator(_secure)]
"""An address with https, or with http on a loopback address."""


class ExternalIssuer(BaseModel):
    """A GoTrue server, or a compatible one, and the tenants whose users its tokens may name."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    issuer: SecureUrl = Field(description="the exact `iss` of its tokens")
    audience: str = Field(default="authenticated", min_length=1)
    algorithms: tuple[Literal["HS256", "RS256", "ES256"], ...] = Field(min_length=1)
    key: SecretStr | None = Field(default=None, description="HS256: the shared secret; otherwise a public key in PEM")
    jwks_url: SecureUrl | None = Field(default=None, description="the URL of its public keys")
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
