"""API keys as requests meet them: found in a cache of 5 seconds, their use noted in batches."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from api.background import end
from api.database.engine import Database
from api.http.cache import FreshCache
from api.http.principal import KeyPrincipal
from api.keys.repository import find_live, note_use
from api.keys.service import hash_of

FORM = re.compile(r"rk_[A-Za-z0-9_-]{43}")
FRESH_SECONDS = 5.0
FLUSH_SECONDS = 10.0

log = structlog.get_logger(__name__)


class KeyDirectory:
    """Principals by key. A revoked key is accepted for at most `FRESH_SECONDS` more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: FreshCache[bytes, KeyPrincipal | None] = FreshCache(
            lambda key_hash: find_live(database.pool, key_hash), FRESH_SECONDS
        )
        self._used: dict[UUID, datetime] = {}

    async def find(self, key: str) -> KeyPrincipal | None:
        """The principal of this key, or None. What does not look like a key is not looked for."""
        if FORM.fullmatch(key) is None:
            return None
        principal = await self._found.get(hash_of(key))
        if principal is not None:
            self._used[principal.key_id] = datetime.now(UTC)
        return principal

    @asynccontextmanager
    async def noting_use(self) -> AsyncIterator[None]:
        """While inside, `last_used_at` follows by `FLUSH_SECONDS`; what is left is written at the end."""
        task = asyncio.create_task(self._flush_forever())
        try:
            yield
        finally:
            await end(task)
            await self._flush()

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush()

    async def _flush(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await note_use(self._database.pool, used)
        except (psycopg.OperationalError, PoolTimeout) as error:
            self._used = used | self._used  # later
            log.warning("the last use of keys was not noted", error=repr(error), keys=len(self._used))
