"""The public keys that an issuer publishes, as they are now: a JSON Web Key Set behind a URL (RFC 7517)."""

import asyncio
import time
from collections import deque
from collections.abc import Collection

import httpx
import jwt
import structlog

from api.http.problems import Unavailable

FRESH_SECONDS = 300.0
"""A withdrawn key is good for at most this long."""
RETRY_SECONDS = 5.0
TIMEOUT_SECONDS = 2.0
VAIN_FETCHES, VAIN_SECONDS = 5, 10.0
"""Unknown key ids, which anybody can make up, cause at most so many fetches in so many seconds."""
ASYMMETRIC = {"RSA", "EC"}

log = structlog.get_logger(__name__)


class KeySet:
    """The keys of one URL, fetched when they are old or when a token names one that is not among them."""

    def __init__(self, url: str, algorithms: Collection[str], client: httpx.AsyncClient) -> None:
        self._url = url
        self._algorithms = algorithms
        self._client = client
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = -FRESH_SECONDS
        self._failed = -RETRY_SECONDS
        self._vain: deque[float] = deque(maxlen=VAIN_FETCHES)
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The key of this id; None where the issuer has none. Raises Unavailable where it does not answer."""
        if time.monotonic() - self._fetched >= FRESH_SECONDS:
            await self._refresh()
        if kid not in self._keys and self._may_ask_for_unknown():
            await self._refresh()
            if kid not in self._keys:
                self._vain.append(time.monotonic())
        return self._keys.get(kid)

    def _may_ask_for_unknown(self) -> bool:
        return len(self._vain) < VAIN_FETCHES or time.monotonic() - self._vain[0] >= VAIN_SECONDS

    async def _refresh(self) -> None:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)  # a client that goes away must not take it from the others

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
            raise ValueError("it is no JSON Web Key Set")
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
