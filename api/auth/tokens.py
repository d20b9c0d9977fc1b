"""Our own tokens: who logged in, for how long. What a user may do is read from its row, never from here."""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import jwt

from api.sessions.tables import UserSession
from api.users.tables import User
from configs.settings import AuthSettings

ALGORITHM = "HS256"
AUDIENCE = "authenticated"
MIN_SECRET_BYTES = 32
LEEWAY_SECONDS = 5
CLAIMS = ["iss", "sub", "aud", "role", "tenant_id", "session_id", "iat", "exp", "jti"]


class MissingSecretError(RuntimeError):
    """The API has no secret to sign with."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token, and until when it is good (seconds since the epoch)."""

    token: str
    expires_at: int


class Tokens:
    """Signs and checks tokens. Raises MissingSecretError where there is no secret of at least 32 bytes."""

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

    def issue(self, user: User, session: UserSession) -> AccessToken:
        """A signed token for this user in this session."""
        now = int(time.time())
        expires_at = now + self._settings.token_seconds
        claims = {
            "iss": self._settings.jwt_issuer,
            "sub": user.id,
            "aud": AUDIENCE,
            "role": user.role,
            "tenant_id": user.tenant_id,
            "session_id": str(session.id),
            "iat": now,
            "exp": expires_at,
            "jti": str(uuid4()),
        }
        return AccessToken(jwt.encode(claims, self._secret, algorithm=ALGORITHM), expires_at)

    def claims(self, token: str) -> Mapping[str, Any] | None:
        """The claims of a token that we signed and that has not expired; None of any other."""
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

    def refresh_token(self, session: UserSession) -> str:
        """The refresh token of the session's present generation, signed and therefore nowhere stored."""
        named = session.id.bytes + session.generation.to_bytes(4, "big")
        return base64.urlsafe_b64encode(named + self._signature(named)).decode().rstrip("=")

    def read_refresh_token(self, token: str) -> tuple[UUID, int] | None:
        """The session and the generation that a refresh token of ours names; None for any other text."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        named, signature = raw[:20], raw[20:]
        if len(named) != 20 or not hmac.compare_digest(signature, self._signature(named)):
            return None
        return UUID(bytes=named[:16]), int.from_bytes(named[16:], "big")

    def _signature(self, named: bytes) -> bytes:
        return hmac.digest(self._refresh_key, named, hashlib.sha256)
