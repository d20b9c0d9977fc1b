"""Runs PostgreSQL's own programs. Passwords are in their environment, which only the same user can read."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from configs.local.os_user import OsUser
from configs.local.postgres_cluster import binaries
from configs.postgres import PostgresSettings

_VARIABLES = {
    "dbname": "PGDATABASE",
    **{
        name: f"PG{name.upper()}"
        for name in (
            *("host", "hostaddr", "port", "user", "password", "passfile", "service", "options", "sslmode"),
            *("sslrootcert", "sslcert", "sslkey", "sslcrl", "channel_binding", "connect_timeout", "gssencmode"),
        )
    },
    "application_name": "PGAPPNAME",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
_KEPT = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR")


class ProgramError(RuntimeError):
    """A program failed. The message holds what it said."""


def run_program(program: str, url: str, *arguments: str) -> str:
    """Run a program against the database of this URL and return its output.

    Raises ProgramError where it fails, ValueError for a parameter of the URL that it cannot be given.
    """
    settings = PostgresSettings()
    folder = binaries(OsUser()) if settings.programs is None else settings.programs
    return run_child([folder / program, "--no-password", *arguments], _environment(conninfo_to_dict(url)))


def run_child(command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    """Run a command, which is killed with this process, and return its output. Raises ProgramError where it fails."""
    child = OsUser().start(
        command,
        on_parent_death=signal.SIGKILL,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output, errors = child.communicate()
    if child.returncode != 0:
        raise ProgramError(f"{Path(command[0]).name} failed: {errors.strip()}")
    return str(output)


def list_dump(dump: Path) -> str:
    """The contents of a dump. Raises ProgramError for a file that is no dump."""
    return run_program("pg_restore", "postgresql://", "--list", str(dump))


def _environment(parameters: Mapping[str, object]) -> dict[str, str]:
    if unknown := sorted(set(parameters) - set(_VARIABLES)):
        raise ValueError(f"DATABASE_URL: {unknown[0]} cannot be given to PostgreSQL's programs")
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {_VARIABLES[name]: str(value) for name, value in parameters.items() if value is not None}
