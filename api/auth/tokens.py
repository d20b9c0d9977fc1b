"""Signs and verifies our own tokens. They name user and session; permissions are read from the user's row."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import jwt

from api.sessions.repository import TokenGeneration
from api.users.tables import User
from configs.settings import AuthSettings

ALGORITHM = "HS256"
AUDIENCE = "authenticated"
MIN_SECRET_BYTES = 32
LEEWAY_SECONDS = 5
CLAIMS = ["iss", "sub", "aud", "role", "tenant_id", "session_id", "iat", "exp", "jti"]


class MissingSecretError(RuntimeError):
    """There is no secret to sign tokens with."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token, and when it expires, in seconds since the epoch."""

    token: str
    expires_at: int


class Tokens:
    """Signs and verifies tokens. Raises MissingSecretError without a secret of at least 32 bytes."""

    def __init__(self, settings: AuthSettings) -> None:
        secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else ""
        if len(secret.encode()) < MIN_SECRET_BYTES:
            raise MissingSecretError(
                f"set JWT_SECRET to a secret of at least {MIN_SECRET_BYTES} bytes, such as the output of "
                "`python -c 'import secrets; print(secrets.token_urlsafe(48))'`"
            )
        self._secret = secret
        self._refresh_key = hmac.digest(secret.encode(), b"refresh tokens", hashlib.sha256)
        self._settings = settings

    def issue(self, user: User, generation: TokenGeneration) -> AccessToken:
        """The access token of the user for this generation of a session. Computed again, it is the same."""
        issued_at = int(generation.begun_at.timestamp())
        expires_at = issued_at + self._settings.token_seconds
        claims = {
            "iss": self._settings.jwt_issuer,
            "sub": user.id,
            "aud": AUDIENCE,
            "role": user.role,
            "tenant_id": user.tenant_id,
            "session_id": str(generation.session.id),
            "iat": issued_at,
            "exp": expires_at,
            "jti": str(UUID(bytes=self._signature(b"jti" + _payload(generation))[:16], version=4)),
        }
        return AccessToken(jwt.encode(claims, self._secret, algorithm=ALGORITHM), expires_at)

    def claims(self, token: str) -> Mapping[str, Any] | None:
        """The claims of a token that was signed here and has not expired; None for any other text."""
        try:
            return jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=self._settings.jwt_issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": CLAIMS},
            )
        except jwt.InvalidTokenError:
            return None

    def refresh_token(self, generation: TokenGeneration) -> str:
        """The refresh token of this generation of a session. It is signed, so it need not be stored."""
        payload = _payload(generation)
        return base64.urlsafe_b64encode(payload + self._signature(payload)).decode().rstrip("=")

    def read_refresh_token(self, token: str) -> tuple[UUID, int] | None:
        """Session id and generation of a refresh token that was signed here; None for any other text."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        payload, signature = raw[:20], raw[20:]
        if len(payload) != 20 or not hmac.compare_digest(signature, self._signature(payload)):
            return None
        return UUID(bytes=payload[:16]), int.from_bytes(payload[16:], "big")

    def _signature(self, payload: bytes) -> bytes:
        return hmac.digest(self._refresh_key, payload, hashlib.sha256)


def _payload(generation: TokenGeneration) -> bytes:
    return generation.session.id.bytes + generation.number.to_bytes(4, "big")
