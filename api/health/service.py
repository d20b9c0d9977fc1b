"""Checks whether the database, its migrations and the model server are up."""

import asyncio

import psycopg

from api.database.engine import UNREACHABLE, Database
from api.database.migrate import head_revision, known_revisions
from api.health.schemas import Readiness, State
from serving.client import ServingClient
from serving.contracts.messages import ServingUnavailable

TIMEOUT_SECONDS = 1.0


async def readiness(database: Database, serving: ServingClient) -> Readiness:
    """The state of each part. A part that does not answer within `TIMEOUT_SECONDS` is down."""
    (database_state, migrations), serving_state = await asyncio.gather(_database(database), _serving(serving))
    return Readiness(database=database_state, migrations=migrations, serving=serving_state)


async def _database(database: Database) -> tuple[State, State]:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), database.pool.connection() as connection:
            cursor = await connection.execute("SELECT version_num FROM alembic_version")
            row = await cursor.fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):  # the rights come with a migration
        return "up", "down"
    except (*UNREACHABLE, TimeoutError):
        database.recheck()
        return "down", "down"
    revision = row[0] if row else ""
    if revision == head_revision():
        return "up", "up"
    return "up", "down" if revision in known_revisions() or not revision else "degraded"


async def _serving(serving: ServingClient) -> State:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return "up" if await serving.releases() else "degraded"
    except (ServingUnavailable, TimeoutError):
        return "down"
