"""Who may log in to the API, and how its tokens are signed."""

import json
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from configs.issuers import ExternalIssuer
from configs.settings import Settings


def _secrets(value: object) -> object:
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else tuple(value.replace(",", " ").split())


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_secrets)]
"""Several secrets in one variable, separated by commas or spaces; or a JSON list, where secrets contain these."""


class AuthSettings(Settings):
    """Secrets and tokens of the API. The JWT secret has no default: without one, the API does not start, unless
    `python -m api rotate-signing-key` has made a key in the state folder."""

    jwt_secret: SecretStr | None = Field(default=None, alias="JWT_SECRET", description="at least 32 bytes")
    jwt_other_secrets: Secrets = Field(
        default=(),
        alias="JWT_OTHER_SECRETS",
        description="verify tokens and never sign: the secret before, or the next",
    )
    jwt_issuer: str = Field(default="recommendai", alias="JWT_ISSUER", description="the `iss` of our own tokens")
    token_seconds: int = Field(default=3_600, alias="JWT_SECONDS", ge=60, description="life of an access token")
    session_seconds: int = Field(
        default=30 * 86_400, alias="SESSION_SECONDS", ge=60, description="life of an unused refresh token"
    )
    registration_tenant: str | None = Field(
        default=None,
        alias="REGISTRATION_TENANT",
        description="the tenant that anyone may join; None: registration is closed",
    )
    external_issuers: tuple[ExternalIssuer, ...] = Field(
        default=(),
        alias="EXTERNAL_ISSUERS",
        description="a JSON list: issuer, audience, algorithms, key or jwks_url, tenants",
    )
