"""Restores a backup into an empty place: in a folder beside, which gets its name once everything is there."""

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from psycopg.conninfo import conninfo_to_dict

from api.backup.contents import copy_file
from api.backup.journals import entries_of, given_journals, place_journal, require_continuation
from api.backup.making import DUMP, ENVIRONMENT, STATE, BackupError, only_attempt, work_folders
from api.backup.manifest import BrokenBackupError, files_below, verified_manifest
from api.backup.programs import list_dump, run_child, run_program
from api.backup.replay import Replayed, replay
from api.backup.servers import (
    ROOT,
    Urls,
    bundled_server,
    discard,
    discard_failed,
    drop_mark,
    keep_mark,
    move_cluster,
    own_database,
)
from api.erasure.journal import ErasureJournal
from configs.files import publish_folder, sync, write_private
from configs.journal import ERASURES, REVOCATIONS, JournalSettings, read_journal
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from configs.state_check import refuse_with_state_url

REPORT = "restore-report.json"
_MLFLOW_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns in which MLflow keeps absolute addresses of artefacts."""


@dataclass(frozen=True)
class Restored:
    """The report of a restore."""

    backup_started_at: str
    restored_at: str
    files: int
    revision: str
    journals: dict[str, str]  # by name, where they came from
    is_journal_given: bool  # beside the backup's own, which knows nothing that the backup does not
    replayed: Replayed
    files_followed: str  # what the pipeline says of the lake


def restore_backup(
    paths: PathSettings, database: DatabaseSettings, source: Path, journal: Path | None, *, without_journal: bool
) -> Restored:
    """Restore the backup in `source` into the state folder, and into `DATABASE_URL` where that is set.

    Args:
        journal: the journal of erasures, or the folder of both journals; None: those of the folder that
            `JOURNAL_COPY_DIR` names.
        without_journal: restore also where there is none. Who was erased after the backup comes back then.

    Raises BrokenBackupError for a damaged backup, BackupError where the target is not empty or no journal is known,
    DamagedJournalError for a damaged journal, UnusableStateError where `STATE_URL` is set.
    """
    refuse_with_state_url("a restore")
    root, source = paths.root, source.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise BackupError(f"{root} is not empty: restore into a new folder, which RECOMMENDAI_STATE_DIR names")
    if root.is_mount():
        raise BackupError(f"{root} is a mount point, which cannot be renamed: name a folder below it")
    manifest = verified_manifest(source)
    list_dump(source / DUMP)
    journals = _journals(source, journal, without_journal=without_journal)
    with _work_folder(root) as work:
        for file in files_below(source / STATE):
            copied = copy_file(file, work / file.relative_to(source / STATE))
            if copied != manifest.files.get(str(file.relative_to(source))):
                raise BrokenBackupError(f"{file} has changed since it was verified")
        copy_file(source / ENVIRONMENT, work / "restored-environment.json")
        for name, path in journals.items():
            place_journal(path, work / "journal" / name)
        move_addresses(work, manifest.state_dir, work)
        if database.url is None:
            server = bundled_server(work)
        else:
            server = own_database(Urls(database.resolve_owner(paths), database.resolve(paths)), work)
        with server as urls:
            options = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
            run_program("pg_restore", urls.owner, *options, f"--dbname={_name_of(urls.owner)}", str(source / DUMP))
            revision = urls.upgrade()
            replayed = asyncio.run(
                replay(
                    urls.application,
                    entries_of(journals.get(ERASURES)),
                    entries_of(journals.get(REVOCATIONS)),
                    ErasureJournal(PathSettings(state_dir=work), JournalSettings(copy_folder=None)),
                )
            )
            followed = _follow_database(work, urls.application)
            report = Restored(
                manifest.started_at,
                datetime.now(UTC).isoformat(),
                len(manifest.files),
                revision,
                {name: str(path) for name, path in journals.items()},
                not journals.get(ERASURES, source).is_relative_to(source),
                replayed,
                followed,
            )
        if database.url is None:
            move_cluster(work, root)
        move_addresses(work, str(work), root)
        write_private(work / REPORT, json.dumps(asdict(report), indent=1))
        for folder in (path for path in work.rglob("*") if path.is_dir() and os.access(path, os.R_OK)):
            sync(folder)
        publish_folder(work, root)
        drop_mark(root)
    return report


def _journals(source: Path, journal: Path | None, *, without_journal: bool) -> dict[str, Path]:
    """The journals to replay, by name. The backup's own are used where there are no later ones."""
    own = {name: source / STATE / "journal" / name for name in (ERASURES, REVOCATIONS)}
    own = {name: path for name, path in own.items() if path.exists()}
    copies = JournalSettings().copy_folder
    if journal is None and copies is not None and (copies / ERASURES).exists():
        journal = copies
    if journal is None:
        if not without_journal:
            raise BackupError(
                "no journal is known, so that users who were erased after the backup would come back. Give it with "
                "--journal (it lies in `journal` of the lost state folder, and in the folder of JOURNAL_COPY_DIR), or "
                "say --without-journal"
            )
        return own
    given = given_journals(journal)
    for name, path in given.items():
        for _ in read_journal(path):  # a damaged one is found before anything is done
            pass
        if name in own:
            require_continuation(own[name], path)
    return own | given


def _follow_database(state: Path, url: str) -> str:
    """Bring lake, rejected rows and releases in line with the database, by a command of the pipeline."""
    environment = os.environ | {
        "RECOMMENDAI_STATE_DIR": str(state),
        "DATABASE_URL": url,
        "PYTHONPATH": str(ROOT),
    }
    return run_child([sys.executable, "-m", "pipelines", "follow-database"], environment).strip()


def move_addresses(state: Path, before: str, after: Path) -> None:
    """Rewrite the absolute paths that MLflow and the values of Dagster's assets hold."""
    old, new = Path(before), after
    store = state / "mlflow" / "mlflow.db"
    if store.exists():
        with closing(sqlite3.connect(store)) as connection, connection:
            for table, column in _MLFLOW_ADDRESSES:
                for written, moved in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, length(?) + 1)"  # noqa: S608
                        f" WHERE {column} = ? OR substr({column}, 1, length(?) + 1) = ? || '/'",
                        (moved, written, written, written, written),
                    )
    for file in (state / "dagster" / "values").rglob("*.json"):
        text = file.read_text()
        quoted = [json.dumps(str(path))[1:-1] for path in (old, new)]
        if (moved_text := text.replace(f"{quoted[0]}/", f"{quoted[1]}/")) != text:
            write_private(file, moved_text)


@contextmanager
def _work_folder(root: Path) -> Iterator[Path]:
    """A new folder beside `root`. Those that killed restores left are deleted."""
    with only_attempt(root):
        left = work_folders(root)
        work = root.with_name(f".tmp-{root.name}-{uuid4().hex}")
        try:
            work.mkdir(mode=0o700)
        except PermissionError as error:
            raise BackupError(
                f"{root.parent} cannot be written, so that no folder can be made beside {root}: let "
                "RECOMMENDAI_STATE_DIR name a folder in one that this user may write"
            ) from error
        try:
            for folder in left:
                keep_mark(folder, work)
                discard(folder)
            yield work
        finally:
            if work.exists():
                discard_failed(work)


def _name_of(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])
