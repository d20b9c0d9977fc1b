"""Our own access tokens: who logged in, for how long. What a user may do is read from its row, never from here."""

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import jwt

from api.database.engine import Database
from api.edge.cache import FreshCache
from api.edge.principal import UserPrincipal
from api.users.repository import find_active
from api.users.tables import User
from configs.settings import AuthSettings

ALGORITHM = "HS256"
AUDIENCE = "authenticated"
MIN_SECRET_BYTES = 32
LEEWAY_SECONDS = 5
CLAIMS = ["iss", "sub", "aud", "role", "tenant_id", "session_id", "iat", "exp", "jti"]


class MissingSecretError(RuntimeError):
    """The API has no secret to sign with."""


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
        self._settings = settings

    def issue(self, user: User, session_id: str | None = None) -> str:
        """A signed token for this user; a new session unless told which."""
        now = int(time.time())
        claims = {
            "iss": self._settings.jwt_issuer,
            "sub": user.id,
            "aud": AUDIENCE,
            "role": user.role,
            "tenant_id": user.tenant_id,
            "session_id": session_id or str(uuid4()),
            "iat": now,
            "exp": now + self._settings.token_seconds,
            "jti": str(uuid4()),
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

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


class TokenDirectory:
    """Principals by token. A user's role and activity are at most 5 seconds old."""

    def __init__(self, tokens: Tokens, database: Database) -> None:
        self._tokens = tokens
        self._users: FreshCache[tuple[str, str], UserPrincipal | None] = FreshCache(
            lambda who: find_active(database.pool, *who)
        )

    async def find(self, token: str) -> UserPrincipal | None:
        """The user whose valid token this is, or None."""
        claims = self._tokens.claims(token)
        if claims is None:
            return None
        return await self._users.get((str(claims["tenant_id"]), str(claims["sub"])))
