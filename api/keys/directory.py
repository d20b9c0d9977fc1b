"""Finds the principal of an API key, with a cache of 5 seconds, and stores when keys were last used, in batches."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import structlog

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Database
from api.database.refresh_ahead_cache import RefreshAheadCache
from api.http.principal import KeyPrincipal
from api.keys.repository import find_live, record_use
from api.keys.service import hash_of

KEY_PATTERN = re.compile(r"rk_[A-Za-z0-9_-]{43}")
FRESH_SECONDS = 5.0
FLUSH_SECONDS = 10.0

log = structlog.get_logger(__name__)


class KeyDirectory:
    """Principals by key. After its revocation a key is accepted for `FRESH_SECONDS` at most."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: RefreshAheadCache[bytes, KeyPrincipal | None] = RefreshAheadCache(
            lambda key_hash: find_live(database.pool, key_hash), FRESH_SECONDS
        )
        self._used: dict[UUID, datetime] = {}

    async def find(self, key: str) -> KeyPrincipal | None:
        """The principal of this key, or None. A text without the form of a key is not looked up."""
        if KEY_PATTERN.fullmatch(key) is None:
            return None
        principal = await self._found.get(hash_of(key))
        if principal is not None:
            self._used[principal.key_id] = datetime.now(UTC)
        return principal

    @asynccontextmanager
    async def recording_use(self) -> AsyncIterator[None]:
        """Inside the block, `last_used_at` is written every `FLUSH_SECONDS`; leaving it writes the rest."""
        try:
            async with PeriodicTask("api key use", self._flush, FLUSH_SECONDS, expected=UNREACHABLE):
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
