"""Which API keys can exist at all. A process knows it without a query, so that random keys cost none."""

import asyncio
import sys
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Database
from api.keys.repository import find_untagged_keys
from api.keys.tags import has_tag

LOAD_SECONDS, RETRY_SECONDS = 300.0, 5.0
START_SECONDS = 1.0
"""How long the application's start waits for the first load. Without the database it does not wait longer."""
MAX_NOTED = 10_000
NOT_MIGRATED = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)


class KnownKeys:
    """Tells keys that were made here from random ones.

    A key with a tag is known by its tag. Those without, which versions before made, are few and become no more: the
    beginnings of their hashes are held in memory, 8 bytes each, and read again every five minutes. One that was added
    meanwhile, by a process of the version before, is known from its first use on. A key that has ended is no better
    than a random one: whoever collects such keys cannot ask the database with them as often as it likes.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._secret: bytes | None = None
        self._untagged: array[int] = array("Q")  # sorted
        self._found: dict[bytes, None] = {}
        self._ended: dict[bytes, None] = {}

    def __contains__(self, key_and_hash: tuple[str, bytes]) -> bool:
        key, key_hash = key_and_hash
        if self._secret is None or key_hash in self._ended:
            return False
        return key_hash in self._found or has_tag(key, self._secret) or self._is_untagged(key_hash)

    def note(self, key_hash: bytes, *, is_live: bool) -> None:
        """Note what a query found of a key."""
        noted, other = (self._found, self._ended) if is_live else (self._ended, self._found)
        if key_hash in noted:
            return
        other.pop(key_hash, None)
        noted[key_hash] = None
        if len(noted) > MAX_NOTED:
            del noted[next(iter(noted))]

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[None]:
        """Inside the block, the keys are loaded, and loaded again as time passes."""
        attempted = asyncio.Event()

        async def attempt() -> None:
            try:
                await self.load()
            finally:
                attempted.set()

        task = PeriodicTask(
            "known api keys",
            attempt,
            LOAD_SECONDS,
            expected=(*UNREACHABLE, *NOT_MIGRATED),
            starts_with_pause=False,
            seconds_after_failure=RETRY_SECONDS,
        )
        async with task:
            with suppress(TimeoutError):
                await asyncio.wait_for(attempted.wait(), START_SECONDS)
            yield

    async def load(self) -> None:
        """Read the secret of tags and the keys without one."""
        secret, beginnings = await find_untagged_keys(self._database.pool)
        untagged = array("Q")
        untagged.frombytes(beginnings)
        if sys.byteorder == "little":
            untagged.byteswap()
        self._secret, self._untagged = secret, untagged

    def _is_untagged(self, key_hash: bytes) -> bool:
        beginning = int.from_bytes(key_hash[:8], "big")
        place = bisect_left(self._untagged, beginning)
        return place < len(self._untagged) and self._untagged[place] == beginning
