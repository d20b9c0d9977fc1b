"""Tokens as requests meet them: whose they are, by users' rows that are at most 5 seconds old."""

from typing import NamedTuple
from uuid import UUID

from api.auth.issuers import ExternalIssuers
from api.auth.tokens import Tokens
from api.database.engine import Database
from api.http.cache import FreshCache
from api.http.principal import UserPrincipal
from api.users.directory import Identity, admit, find_active


class _Login(NamedTuple):
    """What a token of our own says."""

    tenant_id: str
    user_id: str
    session_id: UUID


class TokenDirectory:
    """Principals by token. Role, activity and session are at most 5 seconds old."""

    def __init__(self, tokens: Tokens, issuers: ExternalIssuers, database: Database) -> None:
        self._tokens = tokens
        self._issuers = issuers
        self._logins: FreshCache[_Login, UserPrincipal | None] = FreshCache(
            lambda login: find_active(database.pool, *login)
        )
        self._identities: FreshCache[Identity, UserPrincipal | None] = FreshCache(
            lambda identity: admit(database.pool, identity)
        )

    async def find(self, token: str) -> UserPrincipal | None:
        """The user whose valid token this is, or None. A user whom another issuer vouches for gets a row."""
        claims = self._tokens.claims(token)
        if claims is not None:
            try:
                session_id = UUID(claims["session_id"])
            except (AttributeError, TypeError, ValueError):
                return None
            return await self._logins.get(_Login(str(claims["tenant_id"]), str(claims["sub"]), session_id))
        identity = await self._issuers.identity(token)
        return None if identity is None else await self._identities.get(identity)
