"""Connections to PostgreSQL: a SQLAlchemy engine for sessions, a psycopg pool for what every request runs."""

import asyncio

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


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
        )
        self.pool: Pool = AsyncConnectionPool(
            url,
            min_size=pool_min,
            max_size=pool_max,
            timeout=5.0,
            open=False,
            kwargs={"autocommit": True, "application_name": "recommendai-api", "connect_timeout": 5},
            name="requests",
        )
        """psycopg in autocommit: one statement, one round trip. For `recommend`, `similar` and `interactions`."""
        self._check: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Does not wait for a connection: a database that is away fails requests, not the start."""
        await self.pool.open(wait=False)

    def recheck(self) -> None:
        """Have the pool replace the connections that a restart of the server broke, behind the caller's back."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self.pool.check())

    async def close(self) -> None:
        if self._check is not None:
            self._check.cancel()
        await self.pool.close()
        await self.engine.dispose()
