"""Signs and verifies our own tokens. They name user and session; permissions are read from the user's row."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import jwt

from api.auth.signing_keys import SigningKey, SigningKeys
from api.sessions.repository import TokenGeneration
from api.users.tables import User
from configs.auth import AuthSettings

ALGORITHM = "HS256"
AUDIENCE = "authenticated"
LEEWAY_SECONDS = 5
INVALID_TOKEN = (jwt.PyJWTError, ValueError, OverflowError, RecursionError)
"""What decoding raises for a text that is no token, and for claims with absurd numbers."""
CLAIMS = ["iss", "sub", "aud", "role", "tenant_id", "session_id", "iat", "exp", "jti"]


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token, and when it expires, in seconds since the epoch."""

    token: str
    expires_at: int


class Tokens:
    """Signs and verifies tokens with the keys of this process."""

    def __init__(self, settings: AuthSettings, keys: SigningKeys) -> None:
        self.keys = keys
        self._settings = settings

    def issue(self, user: User, generation: TokenGeneration) -> AccessToken:
        """The access token of the user for this generation of a session. Computed again, it is the same."""
        key = self.keys.signer(generation.begun_at.timestamp())
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
            "jti": str(UUID(bytes=_signature(key, b"jti" + _payload(generation))[:16], version=4)),
        }
        token = jwt.encode(claims, key.secret, algorithm=ALGORITHM, headers={"kid": key.kid})
        return AccessToken(token, expires_at)

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """The claims of a token that was signed here and has not expired; None for any other text."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except INVALID_TOKEN:
            return None
        if kid is None:
            keys = self.keys.without_id()
        else:
            key = self.keys.with_id(kid)
            if key is None:
                await self._look_for_new_keys()
                key = self.keys.with_id(kid)
            keys = (key,) if key else ()
        for key in keys:
            if (claims := self._claims(token, key)) is not None:
                return claims
        return None

    def _claims(self, token: str, key: SigningKey) -> Mapping[str, Any] | None:
        try:
            return jwt.decode(
                token,
                key.secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=self._settings.jwt_issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": CLAIMS},
            )
        except INVALID_TOKEN:
            return None

    def refresh_token(self, generation: TokenGeneration) -> str:
        """The refresh token of this generation of a session. It is signed, so it need not be stored."""
        payload = _payload(generation)
        signature = _signature(self.keys.signer(generation.begun_at.timestamp()), payload)
        return base64.urlsafe_b64encode(payload + signature).decode().rstrip("=")

    async def read_refresh_token(self, token: str) -> tuple[UUID, int] | None:
        """Session id and generation of a refresh token that was signed here; None for any other text."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        payload, signature = raw[:20], raw[20:]
        if len(payload) != 20:
            return None
        if not self._is_signed(payload, signature):
            await self._look_for_new_keys()
            if not self._is_signed(payload, signature):
                return None
        return UUID(bytes=payload[:16]), int.from_bytes(payload[16:], "big")

    def _is_signed(self, payload: bytes, signature: bytes) -> bool:
        return any(hmac.compare_digest(signature, _signature(key, payload)) for key in self.keys.valid())

    async def _look_for_new_keys(self) -> None:
        with suppress(ValueError):  # of an unreadable file, which the task that watches it logs
            await self.keys.refresh()


def _signature(key: SigningKey, payload: bytes) -> bytes:
    return hmac.digest(key.derived(b"refresh tokens"), payload, hashlib.sha256)


def _payload(generation: TokenGeneration) -> bytes:
    return generation.session.id.bytes + generation.number.to_bytes(4, "big")
