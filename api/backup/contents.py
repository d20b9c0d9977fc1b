"""Copies the files of a running installation, so that they fit together.

What refers to something is copied before what it refers to, and the lake before the database: its cursor is then never
ahead of the dump, and the next export after a restore adds the rows between them. Features, logs, and whatever else is
made of these files is left out. Of the features, only the positions of items are copied: with others, no champion could
be compared with a later training.
"""

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from api.backup.manifest import checksum
from configs.files import PASSING, PRIVATE, folder_walk, sync
from configs.journal import ERASURES, REVOCATIONS, Journal
from configs.settings import PathSettings
from configs.storage import Storage, open_storage

_POINTER = "latest"
_LEFT_OUT = {
    *("exports", "recommendations"),  # they expire within days
    *("features", "models", "logs", "postgres", "lake", "bentoml", "mlflow", "dagster", "journal"),  # or see below
    *("fetched", "release-cache"),  # copies of objects
    *("postgres.json", "postgres.lock", "database.url", "database-owner.url", "restore-report.json"),
    "database.restoring",
    *("supervisord.conf", "supervisord.pid", "supervisor.sock"),
}
_CHUNK = 1 << 20


class ChangedMeanwhileError(OSError):
    """A file on the backup's disk is not what was written to it."""


def copy_releases(paths: PathSettings, target: Path) -> None:
    """Copy every tenant's complete releases. One that is deleted meanwhile is left out."""
    storage = open_storage(paths.bentoml)
    for name in storage.folders("models"):
        tenant = f"models/{name}"
        try:
            latest = storage.read_text(f"{tenant}/{_POINTER}").strip()
        except FileNotFoundError:
            continue  # the first release is being written, or the tenant was deleted
        copied = target / "bentoml" / tenant
        for release in (each for each in storage.folders(tenant) if each <= latest):
            try:
                _copy_files(storage, f"{tenant}/{release}", target / "bentoml")
            except FileNotFoundError:
                shutil.rmtree(copied / release, ignore_errors=True)
        if copied.exists():
            write_copy(copied / _POINTER, latest.encode())


def copy_lake(paths: PathSettings, target: Path) -> None:
    """Copy every tenant's lake while no export works on it. One that is deleted meanwhile is left out."""
    storage = open_storage(paths.lake)
    for name in storage.folders():
        with storage.lock(name):
            try:
                _copy_files(storage, name, target / "lake")
            except FileNotFoundError:
                if storage.files(name):
                    raise
                shutil.rmtree(target / "lake" / name, ignore_errors=True)  # the tenant was deleted


def copy_rest(paths: PathSettings, target: Path) -> None:
    """Copy what nothing that was copied before refers to: the MLflow store, then its artefacts, Dagster's history
    without the output of its runs, positions of items, and all other files, among them secrets and rejected rows."""
    if (store := paths.mlflow / "mlflow.db").exists():
        copy_database(store, target / "mlflow" / store.name)
    copy_folder(paths.mlflow / "artifacts", target / "mlflow" / "artifacts")
    copy_folder(paths.dagster, target / "dagster", left_out=("storage", "logs"))
    features = open_storage(paths.features)
    for positions in (f"{name}/positions.parquet" for name in features.folders()):
        with suppress(FileNotFoundError):  # none was made yet, or the tenant is being deleted
            copy_file(features.local(positions), target / "features" / positions)
    for path in sorted(paths.root.iterdir()):
        if path.name in _LEFT_OUT or _is_passing(path):
            continue
        if path.is_dir():
            copy_folder(path, target / path.name)
        elif path.is_file():
            copy_file(path, target / path.name)


def copy_journals(paths: PathSettings, target: Path) -> None:
    """Copy the journals up to their last complete line. Call it last, so that they know what the dump knows."""
    for name in (ERASURES, REVOCATIONS):
        Journal(paths.journal / name, target / "journal").copy()


def _copy_files(storage: Storage, key: str, target: Path) -> None:
    """Copy the files below a key. Raises FileNotFoundError where one is deleted meanwhile."""
    for each in storage.files(key):
        copy_file(storage.local(each), target / each)


def copy_folder(source: Path, target: Path, *, left_out: tuple[str, ...] = ()) -> None:
    """Copy a folder's files, without temporary ones and those that are deleted meanwhile. SQLite's databases are copied
    as of one moment.

    Args:
        left_out: names of folders directly in `source`.
    """
    if not source.exists():
        return
    for folder, folders, files in folder_walk(source):
        here = Path(folder)
        folders[:] = [name for name in folders if not _is_passing(here / name)]
        if here == source:
            folders[:] = [name for name in folders if name not in left_out]
        for name in files:
            path = here / name
            if _is_passing(path) or not path.is_file():
                continue
            copy = target / path.relative_to(source)
            try:
                if path.suffix == ".db":
                    copy_database(path, copy)
                else:
                    copy_file(path, copy)
            except FileNotFoundError:
                continue


def copy_file(source: Path, target: Path) -> str:
    """Copy a file to the disk, and read back that it is there. Returns its SHA-256.

    Raises ChangedMeanwhileError where it is not.
    """
    digest = hashlib.sha256()
    with source.open("rb") as reading, _new(target) as writing:
        while chunk := reading.read(_CHUNK):
            digest.update(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    if checksum(target) != digest.hexdigest():
        raise ChangedMeanwhileError(f"{target} is not what was written to it: check the disk")
    return digest.hexdigest()


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite database that may be in use. Raises FileNotFoundError without one, sqlite3.Error for a bad one."""
    if not source.exists():
        raise FileNotFoundError(source)
    with _new(target):
        pass
    with (
        closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, timeout=60)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode = DELETE")  # one file, whatever the mode of the source
        ((found,),) = writing.execute("PRAGMA quick_check(1)").fetchall()
    if found != "ok":
        raise sqlite3.DatabaseError(f"{source} is damaged: {found}")
    sync(target)


def write_copy(target: Path, content: bytes) -> None:
    """Write a small file to the disk."""
    with _new(target) as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())


def _new(path: Path) -> BinaryIO:
    _make_private(path.parent)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb")


def _make_private(folder: Path) -> None:
    """Make a folder and those above it, readable by their owner alone, whatever the umask is."""
    if not folder.exists():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700)


def _is_passing(path: Path) -> bool:
    """Whether a path is a lock, a temporary file, or a part of SQLite's that its copy needs not.

    Folders bear the names of tenants, which may end as such a file's does.
    """
    name = path.name
    if name.startswith((*PASSING, ".probe-")):
        return True
    return name.endswith(("-wal", "-shm", "-journal", ".lock", ".pid", ".sock")) and not path.is_dir()
