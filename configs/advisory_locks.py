"""Locks between machines, held in PostgreSQL. They are released when their process or its connection ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import psycopg

_OPTIONS = "-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0"
"""A lock is waited for, and held, as long as it takes."""
_held: ContextVar[tuple[psycopg.Connection, ...]] = ContextVar("held", default=())


class LockLostError(OSError):
    """The connection that held a lock has ended, so that others may have taken the lock meanwhile."""


@contextmanager
def advisory_lock(url: str, name: str) -> Iterator[None]:
    """Hold the lock of this name among all who use the database. Waits while another holds it.

    The lock belongs to a connection of its own, so no pooler that shares connections by transaction may be between.

    Raises OSError where the database cannot be reached, and LockLostError at the end of the block where the connection
    ended within it.
    """
    try:
        connection = psycopg.connect(
            url, autocommit=True, application_name="recommendai-lock", keepalives_idle=30, options=_OPTIONS
        )
    except psycopg.Error as error:
        raise OSError(errno.ENOLCK, f"no lock, since the database cannot be reached: {type(error).__name__}") from error
    with connection:
        _lock(connection, name)
        token = _held.set((*_held.get(), connection))
        try:
            yield
            check_locks()
        finally:
            _held.reset(token)


def check_locks() -> None:
    """Raise LockLostError where a lock that this thread holds was lost. Call it before what the locks protect."""
    for connection in _held.get():
        try:
            connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise LockLostError(errno.ENOLCK, "the database ended the connection that held a lock") from error


def _lock(connection: psycopg.Connection, name: str) -> None:
    try:
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"recommendai {name}"])
    except psycopg.Error as error:
        raise LockLostError(errno.ENOLCK, "the database ended the connection that waited for a lock") from error
