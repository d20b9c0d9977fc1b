"""Makes a backup of a running installation. It is written beside its place and renamed once it is verified."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from uuid import uuid4

import psycopg

import configs
from api.backup import contents
from api.backup.manifest import FORMAT, Manifest, checksum, files_below, verified_manifest, write_manifest
from api.backup.programs import list_dump, run_program
from api.database.migrate import head_revision
from configs.files import publish_folder, sync
from configs.settings import PathSettings, Settings
from configs.state_check import refuse_with_state_url

DUMP = "database.dump"
STATE = "state"
ENVIRONMENT = "environment.json"


class BackupError(RuntimeError):
    """A backup cannot be made or restored here. The message says why and what to do."""


def make_backup(paths: PathSettings, url: str, target: Path) -> Manifest:
    """Make a backup in the folder `target`, which must not exist or be empty.

    Raises BackupError where it is in the way or lies in the state folder, ProgramError where the database
    cannot be dumped, OSError where a disk is full, UnusableStateError where `STATE_URL` is set.
    """
    refuse_with_state_url("a backup")
    target = target.absolute()
    if not paths.root.is_dir():
        raise BackupError(f"{paths.root} does not exist: set RECOMMENDAI_STATE_DIR to the state folder")
    if target.resolve().is_relative_to(paths.root.resolve()):
        raise BackupError(f"{target} lies in the state folder: keep backups elsewhere, best on another disk")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BackupError(f"{target} is not empty: every backup needs a folder of its own")
    with _work_folder(target) as work:
        started = datetime.now(UTC).isoformat()
        revision, version = _versions(url)
        contents.copy_releases(paths, work / STATE)
        contents.copy_lake(paths, work / STATE)
        contents.write_copy(work / DUMP, b"")  # private from its first byte
        run_program("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={work / DUMP}")
        list_dump(work / DUMP)
        sync(work / DUMP)
        contents.copy_rest(paths, work / STATE)
        contents.copy_journals(paths, work / STATE)
        contents.write_copy(work / ENVIRONMENT, json.dumps(kept_environment(), indent=1).encode())
        files = {str(file.relative_to(work)): checksum(file) for file in sorted(files_below(work))}
        manifest = Manifest(FORMAT, started, str(paths.root), revision, version, files)
        write_manifest(work, manifest)
        verified_manifest(work)
        for folder in (path for path in work.rglob("*") if path.is_dir()):
            sync(folder)
        publish_folder(work, target)
    return manifest


def work_folders(target: Path) -> list[Path]:
    """Folders beside `target` that killed attempts at it left, and not those at a place whose name is longer."""
    prefix = f".tmp-{target.name}-"
    found = (path for path in target.parent.iterdir() if path.name.startswith(prefix))
    return sorted(path for path in found if "-" not in path.name.removeprefix(prefix))


@contextmanager
def only_attempt(target: Path) -> Iterator[None]:
    """Keep other attempts at the same place out. Raises BackupError while there is one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"another backup or restore works in {target.parent}: wait until it ends") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    with only_attempt(target):
        for left in work_folders(target):
            shutil.rmtree(left)
        work = target.with_name(f".tmp-{target.name}-{uuid4().hex}")
        work.mkdir(mode=0o700)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)  # it was renamed, or the attempt failed


def _versions(url: str) -> tuple[str, str]:
    """The database's revision and the server's version."""
    with psycopg.connect(url) as connection:
        known = connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone()
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known == (True,) else None
        if row is None or row[0] != head_revision():
            raise BackupError("the database is not at this version's revision: run `python -m api migrate` first")
        return str(row[0]), str(connection.info.server_version)


def kept_environment() -> dict[str, str]:
    """The settings that the environment of this process holds, secrets included, without the place of the state."""
    modules = [import_module(f"configs.{each.name}") for each in iter_modules(configs.__path__)]
    groups = [
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Settings)
    ]
    names = {str(field.alias) for group in groups for field in group.model_fields.values()} - {"RECOMMENDAI_STATE_DIR"}
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}
