"""Connections to PostgreSQL: a SQLAlchemy engine for sessions, a psycopg pool for what every request runs."""

from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Database:
    """The open database of a process."""

    engine: AsyncEngine
    pool: Pool
    """psycopg in autocommit: one statement, one round trip. For `recommend`, `similar` and `interactions`."""

    @classmethod
    async def open(cls, url: str, *, pool_min: int = 2, pool_max: int = 16) -> "Database":
        """Open both pools without waiting for a connection: a database that is away fails requests, not the start."""
        engine = create_async_engine(sqlalchemy_url(url), pool_size=pool_min, max_overflow=pool_max - pool_min)
        pool: Pool = AsyncConnectionPool(
            url,
            min_size=pool_min,
            max_size=pool_max,
            timeout=5.0,
            open=False,
            kwargs=_connection_options(),
            name="requests",
        )
        await pool.open(wait=False)
        return cls(engine, pool)

    async def close(self) -> None:
        await self.pool.close()
        await self.engine.dispose()


def _connection_options() -> dict[str, Any]:
    return {"autocommit": True, "application_name": "recommendai-api", "connect_timeout": 5}
