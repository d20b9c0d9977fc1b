"""Notices a database that was restored by other means than `restore`, and repeats erasures in it.

The file `cluster` beside the journals names the cluster in which the database last was. `migrate`, which has to run
after every restore, compares it. It does not end sessions, since a failover to a standby looks the same.
"""

import asyncio

import psycopg

from api.backup.journals import entries_of
from api.backup.replay import Replayed, replay
from api.erasure.journal import ErasureJournal
from configs.files import write_private
from configs.journal import ERASURES, REVOCATIONS, JournalSettings
from configs.settings import PathSettings

_FILE = "cluster"


def repeat_erasures(paths: PathSettings, url: str) -> Replayed | None:
    """Erase and revoke again what the journals hold, where the migrated database is in another cluster than before.

    Returns None where it is not. Raises DamagedJournalError where a journal cannot be read.
    """
    with psycopg.connect(url) as connection:
        ((present,),) = connection.execute("SELECT cluster_identity()").fetchall()
    known = paths.journal / _FILE
    before = known.read_text() if known.exists() else None
    if before == present:
        return None
    done = None
    if before is not None:
        erasures, revocations = (
            entries_of(path if path.exists() else None)
            for path in (paths.journal / ERASURES, paths.journal / REVOCATIONS)
        )
        journal = ErasureJournal(paths, JournalSettings())
        done = asyncio.run(replay(url, erasures, revocations, journal, end_sessions=False))
    _remember(paths, str(present))
    return done


def _remember(paths: PathSettings, identity: str) -> None:
    paths.journal.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(paths.journal / _FILE, identity)
