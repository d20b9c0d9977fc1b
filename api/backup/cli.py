"""The commands that back an installation up and restore it."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from api.terminal import fail
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from configs.state_check import UnusableStateError

app = typer.Typer()


@app.command()
def backup(
    to: Annotated[Path, typer.Option("--to", help="the backup's folder, which must not exist or be empty")],
) -> None:
    """Back the whole installation up while it runs: database, lake, models, releases, history, settings and secrets."""
    from api.backup.making import BackupError, make_backup
    from api.backup.manifest import BrokenBackupError
    from api.backup.programs import ProgramError

    errors = (BackupError, BrokenBackupError, ProgramError, UnusableStateError, psycopg.Error, sqlite3.Error)
    try:
        made = make_backup(PathSettings(), DatabaseSettings().resolve_owner(PathSettings()), to)
    except (*errors, OSError, ValueError) as error:
        fail(str(error).strip())
    print(f"{to} holds {len(made.files)} files, verified, as of {made.started_at}")


@app.command()
def restore(
    source: Annotated[Path, typer.Option("--from", help="the folder of a backup")],
    journal: Annotated[
        Path | None, typer.Option(help="the newest journal of erasures, or the folder that it lies in")
    ] = None,
    without_journal: Annotated[
        bool, typer.Option("--without-journal", help="restore although nobody knows who was erased since")
    ] = False,
) -> None:
    """Restore a backup into an empty state folder, and say what was done again that happened after it."""
    from api.backup.making import BackupError
    from api.backup.manifest import BrokenBackupError
    from api.backup.programs import ProgramError
    from api.backup.report import restore_report
    from api.backup.restoring import restore_backup
    from configs.local.os_user import BundledPostgresError

    errors = (BackupError, BrokenBackupError, ProgramError, BundledPostgresError, psycopg.Error, sqlite3.Error)
    try:
        done = restore_backup(PathSettings(), DatabaseSettings(), source, journal, without_journal=without_journal)
    except (*errors, UnusableStateError, OSError, ValueError) as error:
        fail(str(error).strip())
    print(restore_report(done))


@app.command()
def replay_journal(
    journal: Annotated[
        Path | None, typer.Option(help="a journal of erasures, or its folder; default: that of the state folder")
    ] = None,
) -> None:
    """Erase and revoke again in a database that was restored by other means than `restore`, and end all sessions."""
    from api.backup.journals import entries_of, given_journals
    from api.backup.making import BackupError
    from api.backup.replay import replay
    from api.backup.report import replayed_lines
    from api.backup.servers import Urls
    from api.erasure.journal import ErasureJournal
    from configs.journal import ERASURES, REVOCATIONS, JournalSettings

    paths = PathSettings()
    try:
        journals = given_journals(paths.journal if journal is None else journal)
        settings = DatabaseSettings()
        urls = Urls(settings.resolve_owner(paths), settings.resolve(paths))
        urls.upgrade()
        erasures, revocations = (entries_of(journals.get(name)) for name in (ERASURES, REVOCATIONS))
        done = asyncio.run(replay(urls.application, erasures, revocations, ErasureJournal(paths, JournalSettings())))
    except (BackupError, psycopg.Error, OSError, ValueError) as error:
        fail(str(error).strip())
    print("\n".join(replayed_lines(done, {name: str(path) for name, path in journals.items()})))
