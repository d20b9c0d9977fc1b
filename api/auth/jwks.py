"""Fetches and caches the public keys of an issuer: a JSON Web Key Set at a URL (RFC 7517)."""

import asyncio
import time
from collections import deque
from collections.abc import Collection

import httpx
import jwt
import structlog

from api.http.problems import Unavailable

FRESH_SECONDS = 300.0
"""The keys are fetched again after this time, so a withdrawn key is accepted for no longer."""
RETRY_SECONDS = 5.0
TIMEOUT_SECONDS = 2.0
UNKNOWN_KEY_FETCHES, UNKNOWN_KEY_SECONDS = 5, 10.0
"""Tokens with unknown key ids, which anyone can send, cause at most so many fetches in so many seconds."""
ASYMMETRIC = {"RSA", "EC"}

log = structlog.get_logger(__name__)


class KeySet:
    """The keys of one URL. They are fetched when they are old, and when a token names an unknown key."""

    def __init__(self, url: str, algorithms: Collection[str], client: httpx.AsyncClient) -> None:
        self._url = url
        self._algorithms = algorithms
        self._client = client
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = -FRESH_SECONDS
        self._failed = -RETRY_SECONDS
        self._unknown_key_fetches: deque[float] = deque(maxlen=UNKNOWN_KEY_FETCHES)
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The key with this id; None where the issuer has no such key. Raises Unavailable where it does not answer."""
        if time.monotonic() - self._fetched >= FRESH_SECONDS:
            await self._refresh()
        if kid not in self._keys and self._may_ask_for_unknown():
            await self._refresh()
            if kid not in self._keys:
                self._unknown_key_fetches.append(time.monotonic())
        return self._keys.get(kid)

    def _may_ask_for_unknown(self) -> bool:
        return (
            len(self._unknown_key_fetches) < UNKNOWN_KEY_FETCHES
            or time.monotonic() - self._unknown_key_fetches[0] >= UNKNOWN_KEY_SECONDS
        )

    async def _refresh(self) -> None:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)  # a client that disconnects must not cancel it for the others

    async def _fetch(self) -> None:
        now = time.monotonic()
        try:
            if now - self._failed < RETRY_SECONDS:
                raise TimeoutError("failed a moment ago")
            answer = await self._client.get(self._url, timeout=TIMEOUT_SECONDS)
            keys = self._read(answer.raise_for_status().json())
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            if now - self._failed >= RETRY_SECONDS:
                self._failed = now
                log.warning("an issuer's keys cannot be read", url=self._url, error=repr(error))
            if now - self._fetched >= FRESH_SECONDS:
                raise Unavailable("The keys of the token's issuer cannot be read at the moment") from error
            return
        self._keys, self._fetched, self._failed = keys, now, -RETRY_SECONDS

    def _read(self, document: object) -> dict[str, jwt.PyJWK]:
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("the document is no JSON Web Key Set")
        keys = {}
        for entry in entries:
            usable = isinstance(entry, dict) and entry.get("kty") in ASYMMETRIC and entry.get("use", "sig") == "sig"
            if not usable or not isinstance(entry.get("kid"), str):
                continue
            try:
                key = jwt.PyJWK(entry)
            except jwt.PyJWTError as error:
                log.warning("an issuer's key cannot be used", url=self._url, kid=entry["kid"], error=repr(error))
                continue
            if key.algorithm_name in self._algorithms:
                keys[entry["kid"]] = key
        return keys
