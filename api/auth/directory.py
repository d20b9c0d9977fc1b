"""Finds the principal of an access token, with a cache of 5 seconds."""

from typing import NamedTuple
from uuid import UUID

from api.auth.issuers import ExternalIssuers
from api.auth.principals import ExternalIdentity, find_or_add_external_user, find_session_user
from api.auth.tokens import Tokens
from api.database.engine import Database
from api.database.refresh_ahead_cache import RefreshAheadCache
from api.http.principal import UserPrincipal


class _SessionClaims(NamedTuple):
    """The claims of one of our own tokens that name its session."""

    tenant_id: str
    user_id: str
    session_id: UUID


class TokenDirectory:
    """Principals by token. Their role, activity and session were read from the database at most 5 seconds ago."""

    def __init__(self, tokens: Tokens, issuers: ExternalIssuers, database: Database) -> None:
        self._tokens = tokens
        self._issuers = issuers
        self._sessions: RefreshAheadCache[_SessionClaims, UserPrincipal | None] = RefreshAheadCache(
            lambda claims: find_session_user(database.pool, *claims)
        )
        self._identities: RefreshAheadCache[ExternalIdentity, UserPrincipal | None] = RefreshAheadCache(
            lambda identity: find_or_add_external_user(database.pool, identity)
        )

    async def find(self, token: str) -> UserPrincipal | None:
        """The user of a valid token, or None. An unknown user of an external issuer is added."""
        claims = await self._tokens.claims(token)
        if claims is not None:
            try:
                session_id = UUID(claims["session_id"])
            except (AttributeError, TypeError, ValueError):
                return None
            return await self._sessions.get(_SessionClaims(str(claims["tenant_id"]), str(claims["sub"]), session_id))
        identity = await self._issuers.identity(token)
        return None if identity is None else await self._identities.get(identity)
