"""The database session of a request: one transaction, committed once, after the route returns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Database
from api.database.origin import set_origin

STATE_KEY = "database"
"""Key of the request's state: a `Database` joined to a transaction that a middleware began before the route."""


async def _database(request: Request) -> Database:
    found: Database = request.scope["state"].get(STATE_KEY) or request.app.state.database
    return found


CurrentDatabase = Annotated[Database, Depends(_database)]
"""For the routes with the most requests: `async with database.pool.connection() as connection` around each query.

The connections are in autocommit, so that a single statement is a transaction and one round trip.
"""


@asynccontextmanager
async def transaction(database: Database) -> AsyncIterator[AsyncSession]:
    """A session that commits when the block ends, and rolls back when it raises.

    Where the database is joined to a transaction, its session is given, and only flushed.
    """
    if database.session is not None:
        yield database.session
        await database.session.flush()
        return
    async with AsyncSession(database.engine, expire_on_commit=False) as session:
        yield session
        await session.commit()


@asynccontextmanager
async def reading_first(database: Database) -> AsyncIterator[AsyncSession]:
    """A session to read with before something slow: its connection is given back when the block ends.

    Call it before anything is written. Where the database is joined to a transaction, that one begins anew afterwards.
    """
    async with transaction(database) as session:
        yield session
        await session.rollback()


async def allow_statements(session: AsyncSession, seconds: float) -> None:
    """Let the statements of this transaction take so long, whatever the limit of the connection is."""
    statement = text("SELECT set_config('statement_timeout', :milliseconds, true)")
    await (await session.connection()).execute(statement, {"milliseconds": str(round(seconds * 1000))})


async def _session(request: Request, database: CurrentDatabase) -> AsyncIterator[AsyncSession]:
    async with transaction(database) as session:
        set_origin(session, request.app.state.origin.of(request))
        yield session


# With the scope "function" the commit comes before the response is sent; with the default scope it would come after.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]
"""A route's session. Services and repositories use it, and never commit."""
