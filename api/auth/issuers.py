"""Verifies the access tokens of external issuers. Each issuer may name users of its configured tenants only."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import TypeAdapter, ValidationError

from api.auth.jwks import KeySet
from api.auth.principals import ExternalIdentity
from api.auth.tokens import INVALID_TOKEN, LEEWAY_SECONDS
from api.http.schemas import OpaqueId
from api.users.addresses import is_address
from configs.issuers import ExternalIssuer

REQUIRED = ["iss", "sub", "aud", "exp"]
_ID = TypeAdapter(OpaqueId)


class ExternalIssuers:
    """The configured issuers. Raises ValueError for a malformed key, and for an issuer that is listed twice."""

    def __init__(self, issuers: Sequence[ExternalIssuer], own: str) -> None:
        names = [each.issuer for each in issuers]
        if len({own, *names}) <= len(names):
            raise ValueError(f"EXTERNAL_ISSUERS: each `issuer` must be unique and differ from JWT_ISSUER: {names}")
        published = [each.jwks_url for each in issuers if each.jwks_url is not None]
        self._client = httpx.AsyncClient() if published else None  # only where needed, as creating it is slow
        self._issuers = {each.issuer: _Verifier(each, self._client) for each in issuers}

    async def identity(self, token: str) -> ExternalIdentity | None:
        """The user whom a token names; None where no configured issuer signed it. Raises Unavailable: see `KeySet`."""
        if not self._issuers:
            return None
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
        except INVALID_TOKEN:
            return None
        name = unverified["payload"].get("iss")
        verifier = self._issuers.get(name) if isinstance(name, str) else None
        return await verifier.identity(token, unverified["header"]) if verifier else None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()


class _Verifier:
    def __init__(self, settings: ExternalIssuer, client: httpx.AsyncClient | None) -> None:
        self._settings = settings
        self._key: str | PublicKeyTypes | None = None
        self._published: KeySet | None = None
        if settings.jwks_url is not None and client is not None:
            self._published = KeySet(settings.jwks_url, settings.algorithms, client)
        elif settings.key is not None:
            secret = settings.key.get_secret_value()
            self._key = secret if "HS256" in settings.algorithms else load_pem_public_key(secret.encode())

    async def identity(self, token: str, header: Mapping[str, Any]) -> ExternalIdentity | None:
        algorithms: list[str] = list(self._settings.algorithms)
        key = self._key
        if self._published is not None:
            found = await self._published.key(str(header.get("kid", "")))
            if found is None:
                return None
            algorithms, key = [found.algorithm_name], found.key
        try:
            claims = jwt.decode(
                token,
                cast(Any, key),
                algorithms=algorithms,
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": REQUIRED},
            )
            return self._identity(claims)
        except INVALID_TOKEN:
            return None

    def _identity(self, claims: Mapping[str, Any]) -> ExternalIdentity | None:
        """Reads `sub`, `email` and `app_metadata` only, because users may write `user_metadata` themselves."""
        metadata = claims.get("app_metadata")
        if not isinstance(metadata, Mapping) or metadata.get("tenant_id") not in self._settings.tenants:
            return None
        try:
            user_id = _ID.validate_python(claims["sub"])
        except ValidationError:
            return None
        email = claims.get("email")
        return ExternalIdentity(
            tenant_id=metadata["tenant_id"],
            user_id=user_id,
            role="admin" if metadata.get("role") == "admin" else "user",
            email=email if isinstance(email, str) and is_address(email) else None,
            issued_at=min(max(int(claims.get("iat", 0)), 0), int(time.time())),
        )
