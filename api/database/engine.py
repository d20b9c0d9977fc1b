"""Connections to PostgreSQL: a SQLAlchemy engine for sessions, a psycopg pool for what every request runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from typing import Protocol, cast

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import TimeoutError as EngineTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

Connection = AsyncConnection[TupleRow]

UNREACHABLE = (psycopg.OperationalError, PoolTimeout, EngineTimeout)
"""What a statement raises when the database does not answer."""


class Pool(Protocol):
    """Where a query gets its connection from, and for no longer than it runs."""

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection, given back when the block ends."""


class OneConnection:
    """The pool as it looks from inside of a session's transaction: every connection is the session's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        raw = await (await self._session.connection()).get_raw_connection()
        yield cast(Connection, raw.driver_connection)


def sqlalchemy_url(url: str) -> URL:
    """The libpq URL as SQLAlchemy wants it. Raises ValueError where the URL is not one of PostgreSQL."""
    parsed = make_url(url)
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError(f"DATABASE_URL must start with postgresql://, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql+psycopg")


class Database:
    """The database of a process. `open` it within the event loop that uses it, and `close` it there."""

    def __init__(self, url: str, pool_min: int = 2, pool_max: int = 16) -> None:
        self.engine: AsyncEngine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=pool_min,
            max_overflow=pool_max - pool_min,
            pool_timeout=5,
            pool_pre_ping=True,
            hide_parameters=True,  # of a statement that failed, in logs: there are ids of users among them
        )
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=pool_min,
            max_size=pool_max,
            timeout=5.0,
            open=False,
            kwargs={"autocommit": True, "application_name": "recommendai-api", "connect_timeout": 5},
            name="requests",
        )
        self.pool: Pool = self._pool
        """psycopg in autocommit: one statement, one round trip. For `recommend`, `similar` and `interactions`."""
        self.session: AsyncSession | None = None
        """The transaction that everything done through this object belongs to; None: each makes its own."""
        self._check: asyncio.Task[None] | None = None

    def joined(self, session: AsyncSession) -> "Database":
        """The same database as seen from inside of this session's transaction, which its opener alone commits."""
        inside = copy(self)
        inside.session, inside.pool = session, OneConnection(session)
        return inside

    async def open(self) -> None:
        """Does not wait for a connection: a database that is away fails requests, not the start."""
        await self._pool.open(wait=False)

    def recheck(self) -> None:
        """Have the pool replace the connections that a restart of the server broke, behind the caller's back."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._pool.check())

    async def close(self) -> None:
        if self._check is not None:
            self._check.cancel()
        await self._pool.close()
        await self.engine.dispose()
