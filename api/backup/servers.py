"""The database that a restore fills: the bundled PostgreSQL of a new state folder, or an empty one of one's own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psycopg
from psycopg import sql

from api.backup.making import BackupError
from api.database.engine import role_of
from api.database.migrate import upgrade
from configs.files import write_private
from configs.local.os_user import OsUser, postgres_user
from configs.local.postgres_cluster import Cluster
from configs.local.postgres_server import await_predecessor
from configs.settings import PathSettings

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
STOP_SECONDS = 120.0
_MARK = "database.restoring"
"""The file of a work folder that says which database of one's own a restore fills. It stays until the state folder has
its name, so that an attempt that fails or is killed at any moment can be begun anew."""


@dataclass(frozen=True)
class Urls:
    """Of a database, for the role that owns its tables, and for the one that reads and writes rows; maybe the same."""

    owner: str
    application: str

    def upgrade(self) -> str:
        """Migrate the database to the newest revision, which is returned, and let the application's role use it."""
        role = role_of(self.application)
        return upgrade(self.owner, grant_to=None if role == role_of(self.owner) else role)


@contextmanager
def bundled_server(state: Path) -> Iterator[Urls]:
    """The URLs of a new bundled server over this state folder, while it runs. It ends where this process is killed."""
    paths = PathSettings(state_dir=state)
    paths.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Those of the environment are of the installation that the state folder will be.
    dropped = ("POSTGRES_PORT", "DATABASE_URL", "DATABASE_OWNER_URL")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment |= {"RECOMMENDAI_STATE_DIR": str(state), "PYTHONPATH": str(ROOT)}
    with (paths.logs / "restore.log").open("w") as log:
        owner = OsUser().start(
            [sys.executable, "-m", "api", "postgres"],
            on_parent_death=signal.SIGTERM,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not paths.database_url_file.exists():
                if owner.poll() is not None or time.monotonic() > deadline:
                    text = (paths.logs / "restore.log").read_text()
                    raise BackupError(f"the bundled PostgreSQL did not start:\n{text}")
                time.sleep(0.1)
            owner_url, url = paths.database_owner_url_file, paths.database_url_file
            yield Urls(owner_url.read_text().strip(), url.read_text().strip())
        finally:
            owner.terminate()
            if owner.wait(STOP_SECONDS) != 0:
                raise BackupError(f"the bundled PostgreSQL did not stop in order: see {paths.logs / 'restore.log'}")
    paths.database_url_file.unlink()
    paths.database_owner_url_file.unlink()


def move_cluster(state: Path, final: Path) -> None:
    """Say in `postgres.json` where the data will be once the state folder has its final name."""
    record = state / "postgres.json"
    cluster = Cluster.load(record)
    data = Path(cluster.data)
    if data.is_relative_to(state):
        cluster = replace(cluster, data=str(final / data.relative_to(state)))
        write_private(record, json.dumps(asdict(cluster), indent=2))


def keep_mark(left: Path, work: Path) -> None:
    """Remember in a new work folder which database of one's own an earlier restore has begun to fill."""
    if (left / _MARK).exists():
        write_private(work / _MARK, (left / _MARK).read_text())


def drop_mark(state: Path) -> None:
    """Forget that the database was being filled, once the state folder has its name."""
    (state / _MARK).unlink(missing_ok=True)


def discard_failed(work: Path) -> None:
    """Delete a work folder but for its mark, by which the next attempt may empty the database that this one filled."""
    mark = (work / _MARK).read_text() if (work / _MARK).exists() else None
    discard(work)
    if mark is not None:
        work.mkdir(mode=0o700)
        write_private(work / _MARK, mark)


def discard(state: Path) -> None:
    """Delete the work folder of a killed restore, and the bundled server's data where it lies elsewhere."""
    record = state / "postgres.json"
    if record.exists():
        data = Path(Cluster.load(record).data)
        await_predecessor(data, postgres_user())
        for folder in (data, data.with_name(f".{data.name}.partial")):
            if folder.exists():
                shutil.rmtree(folder)
    shutil.rmtree(state)


@contextmanager
def own_database(urls: Urls, work: Path) -> Iterator[Urls]:
    """The URLs, once the database is empty. What an earlier restore to this place left in it is deleted.

    Raises BackupError where it holds something else.
    """
    with psycopg.connect(urls.owner, autocommit=True) as connection:
        name = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
        ours = (work / _MARK).exists() and (work / _MARK).read_text() == name
        if _holds_something(connection):
            if not ours:
                raise BackupError(f"the database of DATABASE_URL ({name}) is not empty: give it an empty one")
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute(sql.SQL("CREATE SCHEMA public"))
        write_private(work / _MARK, name)
    yield urls


def _holds_something(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    return connection.execute(
        "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace"
        " WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
        " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e'))"  # an extension's
    ).fetchone() == (True,)
