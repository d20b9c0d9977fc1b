"""The journal of API keys that were revoked or replaced, which a restore replays.

A line holds tenant, key, the hash of the secret that ended (as hexadecimal digits) and the time. A key that a backup
has under another secret was replaced before, and stays.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from uuid import UUID

from api.journal_copies import copying_journal
from configs.journal import REVOCATIONS, Journal, JournalSettings
from configs.settings import PathSettings


class RevocationJournal:
    """The ended secrets of an installation's keys."""

    def __init__(self, paths: PathSettings, settings: JournalSettings) -> None:
        self._journal = Journal(paths.journal / REVOCATIONS, settings.copy_folder)

    async def record(self, tenant_id: str, key_id: UUID, key_hash: bytes) -> None:
        """Write the end of a secret to disk. Call it before the commit, which must not happen where this raises."""
        ended = {
            "tenant": tenant_id,
            "key": str(key_id),
            "hash": key_hash.hex(),
            "ended_at": datetime.now(UTC).isoformat(),
        }
        await asyncio.to_thread(self._journal.append, [ended])

    def copied(self) -> AbstractAsyncContextManager[None]:
        """While inside, the copy follows within a second."""
        return copying_journal(self._journal, _nothing, ())


async def _nothing() -> None:
    return None
