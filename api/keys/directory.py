"""Finds the principal of an API key, with a cache of 5 seconds, and stores when keys were last used, in batches."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import structlog

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Database
from api.database.refresh_ahead_cache import RefreshAheadCache
from api.http.principal import KeyPrincipal
from api.keys.known_keys import KnownKeys
from api.keys.repository import find_live, record_use
from api.keys.service import hash_of
from api.keys.tags import PATTERN

FRESH_SECONDS = 5.0
FLUSH_SECONDS = 10.0
STRANGERS = 1_000
"""Results that are cached of keys that are not known to exist."""

log = structlog.get_logger(__name__)


class KeyDirectory:
    """Principals by key. After its revocation a key is accepted for `FRESH_SECONDS` at most."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.known = KnownKeys(database)
        load = lambda key_hash: find_live(database.pool, key_hash)  # noqa: E731
        self._found: RefreshAheadCache[bytes, KeyPrincipal | None] = RefreshAheadCache(load, FRESH_SECONDS)
        # Random keys have a cache of their own, from which they cannot drive the others.
        self._strangers: RefreshAheadCache[bytes, KeyPrincipal | None] = RefreshAheadCache(
            load, FRESH_SECONDS, STRANGERS
        )
        self._used: dict[UUID, datetime] = {}

    async def find(self, key: str) -> KeyPrincipal | None:
        """The principal of this key, or None. A text without the form of a key is not looked up."""
        if PATTERN.fullmatch(key) is None:
            return None
        key_hash = hash_of(key)
        is_known = (key, key_hash) in self.known
        principal = await (self._found if is_known else self._strangers).get(key_hash)
        if principal is not None:
            self._used[principal.key_id] = datetime.now(UTC)
        if is_known or principal is not None:
            self.known.note(key_hash, is_live=principal is not None)
        return principal

    def is_doubtful(self, key: str) -> bool:
        """Whether `find` may ask the database for a key that anyone can have made up."""
        return PATTERN.fullmatch(key) is not None and (key, hash_of(key)) not in self.known

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside the block, the known keys are loaded, and `last_used_at` is written every `FLUSH_SECONDS`.

        Leaving it writes the rest.
        """
        try:
            use = PeriodicTask("api key use", self._flush, FLUSH_SECONDS, expected=UNREACHABLE)
            async with self.known.loading(), use:
                yield
        finally:
            try:
                await self._flush()
            except UNREACHABLE as error:
                log.warning("the last use of API keys was not stored", error=repr(error), keys=len(self._used))

    async def _flush(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await record_use(self._database.pool, used)
        except BaseException:
            self._used = used | self._used  # the next flush writes it
            raise
