"""Applies the revisions in `migrations/versions`. An advisory lock makes concurrent callers take turns."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from api.database.engine import sqlalchemy_url
from configs.database import MIGRATION_LOCK, VERSION_TABLE, LimitsOfMigrations, grants, only_read

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(url: str, revision: str = "head", *, grant_to: str | None = None) -> str:
    """Bring the database at this libpq URL up to `revision` and return the revision it is at.

    A database that was restored in another cluster is made to count that one's transactions. Waits while another
    process migrates.

    grant_to: the role that reads and writes rows, where it is another one than the URL's, which owns the tables.
    """
    with _locked(url) as connection:
        command.upgrade(_config(connection), revision)
        if grant_to is not None:
            _grant(connection, grant_to)
        if (reached := _revision_of(connection)) == head_revision():
            connection.execute(text("SELECT adopt_cluster()"))
        return reached


def downgrade(url: str, revision: str) -> str:
    """Take the database back to `revision` (`base`: no tables) and return the revision it is at."""
    with _locked(url) as connection:
        command.downgrade(_config(connection), revision)
        return _revision_of(connection)


@cache
def head_revision() -> str:
    """The newest revision of this code."""
    head = ScriptDirectory.from_config(_config(None)).get_current_head()
    if head is None:
        raise LookupError(f"no revision in {MIGRATIONS}")
    return head


@cache
def known_revisions() -> frozenset[str]:
    """Every revision of this code."""
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config(None)).walk_revisions())


def _grant(connection: Connection, role: str) -> None:
    """Let the role read and write rows. Which revision the database is at, it may only read."""
    raw = connection.connection.driver_connection
    if not isinstance(raw, psycopg.Connection):
        raise TypeError(f"not a connection of psycopg: {raw!r}")
    for statement in (*grants(role, raw.info.server_version), only_read(role, VERSION_TABLE)):
        raw.execute(statement)
    connection.commit()


def _revision_of(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or ""


@contextmanager
def _locked(url: str) -> Iterator[Connection]:
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        # A lock of the session, not of a transaction, because each revision is a transaction of its own.
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
        # Set after the wait for another migration, which is no wait for a table.
        lock = round(LimitsOfMigrations().lock * 1000)
        settings = {"statement_timeout": 0, "idle_in_transaction_session_timeout": 0, "lock_timeout": lock}
        for name, milliseconds in settings.items():
            connection.execute(text(f"SET {name} = {milliseconds}"))
        connection.commit()
        yield connection
        connection.commit()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": MIGRATION_LOCK})


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
