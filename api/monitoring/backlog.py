"""Prometheus metrics of what waits in the database: Stripe's events, generation and export jobs.

They are read every 15 seconds.

Every API process reads them, and all find the same, so the largest of their values is shown.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from prometheus_client import Gauge

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool

EVERY_SECONDS = 15.0

_WAITING = Gauge("recommendai_backlog_rows", "Rows that wait for work", ["queue"], multiprocess_mode="max")
_OLDEST = Gauge(
    "recommendai_backlog_oldest_seconds",
    "Age of the oldest row that waits; 0: none",
    ["queue"],
    multiprocess_mode="max",
)

# A queue's name, its table, the column of its age, and what makes a row wait. An index covers each condition.
_QUEUES = {
    "stripe_events": ("stripe_events", "received_at", "handled_at IS NULL"),
    "generation_jobs": ("generation_jobs", "created_at", "status = 'processing'"),
    "export_jobs": ("export_jobs", "created_at", "status = 'processing'"),
}
_READ = " UNION ALL ".join(
    f"SELECT '{name}', count(*), coalesce(extract(epoch FROM now() - min({age})), 0) FROM {table} WHERE {waits}"  # noqa: S608
    for name, (table, age, waits) in _QUEUES.items()
)


async def read_backlog(pool: Pool) -> None:
    """Set the metrics to what the database holds now. Raises what PostgreSQL raises."""
    async with pool.connection() as connection:
        rows = await (await connection.execute(_READ)).fetchall()
    for name, waiting, oldest in rows:
        _WAITING.labels(name).set(waiting)
        _OLDEST.labels(name).set(max(0.0, float(oldest)))


@asynccontextmanager
async def watching_backlog(pool: Pool) -> AsyncIterator[None]:
    """Within the block, the metrics are kept up to date."""

    async def read() -> None:
        await read_backlog(pool)

    async with PeriodicTask(
        "backlog", read, EVERY_SECONDS, expected=(psycopg.Error, *UNREACHABLE), starts_with_pause=False
    ):
        yield
