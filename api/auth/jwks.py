"""Fetches and caches the public keys of an issuer: a JSON Web Key Set at a URL (RFC 7517)."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Collection
from typing import Any

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from api.http.problems import Unavailable

FRESH_SECONDS = 300.0
"""The keys are fetched again after this time, so a withdrawn key is accepted for no longer."""
RETRY_SECONDS = 5.0
TIMEOUT_SECONDS = 2.0
UNKNOWN_KEY_FETCHES, UNKNOWN_KEY_SECONDS = 5, 10.0
"""Tokens with unknown key ids, which anyone can send, cause at most so many fetches in so many seconds."""
MAX_BYTES, MAX_PUBLISHED = 1_000_000, 100
"""The most that is read of an issuer's answer."""
ASYMMETRIC = {"RSA", "EC"}
PUBLIC = (RSAPublicKey, EllipticCurvePublicKey)

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
            async with asyncio.timeout(TIMEOUT_SECONDS):
                keys = self._read(json.loads(await self._download()))
        except (httpx.HTTPError, TimeoutError, ValueError, RecursionError) as error:
            if now - self._failed >= RETRY_SECONDS:
                self._failed = now
                log.warning("an issuer's keys cannot be read", url=self._url, error=repr(error))
            if now - self._fetched >= FRESH_SECONDS:
                raise Unavailable("The keys of the token's issuer cannot be read at the moment") from error
            return
        self._keys, self._fetched, self._failed = keys, now, -RETRY_SECONDS

    async def _download(self) -> bytes:
        """The body of the answer. Redirects are not followed. Raises ValueError where it is too long."""
        body = b""
        async with self._client.stream("GET", self._url, timeout=TIMEOUT_SECONDS) as answer:
            answer.raise_for_status()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise ValueError(f"the document has more than {MAX_BYTES:,} bytes")
        return body

    def _read(self, document: object) -> dict[str, jwt.PyJWK]:
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("the document is no JSON Web Key Set")
        keys: dict[str, jwt.PyJWK] = {}
        for entry in entries[:MAX_PUBLISHED]:
            try:
                found = self._read_one(entry)
            # Members of any type and numbers that are no key make the libraries raise errors of many kinds.
            except Exception as error:
                log.warning("an issuer's key cannot be used", url=self._url, error=repr(error)[:200])
            else:
                keys |= found
        return keys

    def _read_one(self, entry: dict[str, Any]) -> dict[str, jwt.PyJWK]:
        if entry["kty"] not in ASYMMETRIC or entry.get("use", "sig") != "sig" or not isinstance(entry["kid"], str):
            return {}
        key = jwt.PyJWK(entry)
        if not isinstance(key.key, PUBLIC):
            raise ValueError("the key is private")
        return {entry["kid"]: key} if key.algorithm_name in self._algorithms else {}
