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

from api.database.prepared import PreparedStatements, Rows, fetch_with

Connection = AsyncConnection[TupleRow]

MAX_BORROWED = 4
"""Connections that read by prepared statements, two for each of the busiest reads."""

RECONNECT_SECONDS = 2.0
"""How long the pool tries a connection again before it gives the attempt up; the next request begins a new one.

The pool doubles the pause between its attempts up to this. With its own default of five minutes, the first attempt
after an outage could come as long after it as the outage had lasted.
"""

UNREACHABLE = (
    psycopg.OperationalError,
    psycopg.errors.IdleInTransactionSessionTimeout,  # no OperationalError, though the server ended the connection
    PoolTimeout,
    EngineTimeout,
)
"""What a statement raises when the database does not answer, in time or at all."""


class Pool(Protocol):
    """Lends a connection for one query."""

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection, which is returned when the block ends."""

    async def fetch(self, statement: str, *parameters: str | None) -> Rows:
        """The rows of one statement. See `PreparedStatements.fetch`, which is the quickest way to read."""


class RequestPool:
    """The `Pool` of a process."""

    def __init__(self, connections: AsyncConnectionPool[Connection]) -> None:
        self._connections = connections
        # Most of the pool stays with those who need a connection for several statements.
        borrowed = min(MAX_BORROWED, connections.max_size // 4)
        self._prepared = PreparedStatements(connections, borrowed) if borrowed else None

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        return self._connections.connection()

    async def fetch(self, statement: str, *parameters: str | None) -> Rows:
        if self._prepared is not None:
            return await self._prepared.fetch(statement, *parameters)
        async with self.connection() as connection:
            return await fetch_with(connection, statement, parameters)

    async def close(self) -> None:
        if self._prepared is not None:
            await self._prepared.close()
        await self._connections.close()


class OneConnection:
    """A `Pool` inside a session's transaction: it always lends the session's own connection."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        raw = await (await self._session.connection()).get_raw_connection()
        yield cast(Connection, raw.driver_connection)

    async def fetch(self, statement: str, *parameters: str | None) -> Rows:
        async with self.connection() as connection:
            return await fetch_with(connection, statement, parameters)


def sqlalchemy_url(url: str) -> URL:
    """A libpq URL in SQLAlchemy's form. Raises ValueError where it is not a PostgreSQL URL."""
    parsed = make_url(url)
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError(f"DATABASE_URL must start with postgresql://, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql+psycopg")


def role_of(url: str) -> str | None:
    """The role that a libpq URL names."""
    return make_url(url).username


class Database:
    """The database connections of a process. Call `open` and `close` in the event loop that uses them."""

    def __init__(self, url: str, pool_min: int = 2, pool_max: int = 16) -> None:
        self.engine: AsyncEngine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=pool_min,
            max_overflow=pool_max - pool_min,
            pool_timeout=5,
            pool_pre_ping=True,
            hide_parameters=True,  # keeps the ids of users out of logged errors
        )
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=pool_min,
            max_size=pool_max,
            timeout=5.0,
            reconnect_timeout=RECONNECT_SECONDS,
            open=False,
            kwargs={"autocommit": True, "application_name": "recommendai-api", "connect_timeout": 5},
            name="requests",
        )
        self._requests = RequestPool(self._pool)
        self.pool: Pool = self._requests
        """psycopg in autocommit, so that a statement takes one round trip. The routes with the most requests use it."""
        self.session: AsyncSession | None = None
        """The transaction that everything done through this object joins. None: each use begins its own."""
        self._check: asyncio.Task[None] | None = None

    def joined(self, session: AsyncSession) -> "Database":
        """This database, joined to the session's transaction. Whoever opened the session commits it."""
        inside = copy(self)
        inside.session, inside.pool = session, OneConnection(session)
        return inside

    async def open(self) -> None:
        """Open the pool without waiting for a connection: without a database requests fail, and the start does not."""
        await self._pool.open(wait=False)

    def recheck(self) -> None:
        """Start a background check in which the pool replaces the connections that a restart of the server broke."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._pool.check())

    async def close(self) -> None:
        if self._check is not None:
            self._check.cancel()
        await self._requests.close()
        await self.engine.dispose()
