"""The jobs by which administrators ask for files of their tenant's rows: claimed, completed, and cleared away.

The API writes a job's row; the pipeline writes the file and updates the row. The SQL names tables and columns as text,
which a contract test holds against the API's tables.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from adbc_driver_postgresql import dbapi

from feature_store.table_files import FileFormat

MAX_ATTEMPTS = 3
"""Starts of an export before it fails."""
_MAX_DELETED = 1_000
"""Finished jobs that one call deletes."""


@dataclass(frozen=True)
class ClaimedExport:
    """An export that this process works on."""

    id: str
    table: str  # one of `table_files.EXPORTED_TABLES`
    file_format: FileFormat
    since: datetime | None
    until: datetime | None
    attempt: int  # from 1

    @property
    def file_name(self) -> str:
        return f"{self.id}.{self.file_format}"


class ExportJobs:
    """Changes a tenant's export jobs while it holds their lock: see `exporting`."""

    def __init__(self, connection: dbapi.Connection, tenant_id: str) -> None:
        self._connection = connection
        self._tenant_id = tenant_id

    def next_job(self) -> ClaimedExport | None:
        """Start the tenant's oldest unfinished job, again where it broke off. Fails one that did MAX_ATTEMPTS times."""
        while (row := self._change(_START)) is not None:
            job = ClaimedExport(*row)
            if job.attempt <= MAX_ATTEMPTS:
                return job
            self.fail(job, f"{MAX_ATTEMPTS} times it broke off or a user was erased meanwhile; ask again")
        return None

    def complete(self, job: ClaimedExport, rows: int, size: int, hours: int) -> bool:
        """Mark the job as completed, with a link of so many hours.

        False where the file must not be given: a user was erased since the job was claimed, or the job is gone.
        """
        return self._change(_COMPLETE, job.id, rows, size, hours) is not None

    def fail(self, job: ClaimedExport, reason: str) -> None:
        """Mark the job as failed, with a reason for the user of the API."""
        self._change(_FAIL, job.id, reason)

    def _change(self, statement: str, *parameters: Any) -> tuple[Any, ...] | None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, (self._tenant_id, *parameters))
            row: tuple[Any, ...] | None = cursor.fetchone()
        self._connection.commit()
        return row


@contextmanager
def exporting(url: str, tenant_id: str) -> Iterator[ExportJobs | None]:
    """Hold the lock of the tenant's exports until the block or this process ends; None where another holds it."""
    with dbapi.connect(url) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(hashtextextended('exports ' || $1, 0))", (tenant_id,))
            row = cursor.fetchone()
        connection.commit()  # the lock belongs to the session and ends with the connection
        yield ExportJobs(connection, tenant_id) if row is not None and row[0] else None


def tenants_to_export(url: str) -> list[str]:
    """Ids of the tenants with an unfinished export, the longest waiting first."""
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(_WAITING)
        return cursor.fetch_arrow_table().column("id").to_pylist()


def files_to_keep(url: str, kept_days: int) -> set[tuple[str, str]]:
    """Tenant and name of every file that somebody may still fetch, or that is being written.

    Before that, it marks exports whose link has expired, and deletes failed and expired jobs that ended more than
    `kept_days` days ago.
    """
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(_EXPIRE)
        cursor.execute(_DELETE_OLD, (kept_days,))
        cursor.execute(_KEPT)
        found = cursor.fetch_arrow_table()
    return set(zip(found["tenant_id"].to_pylist(), found["file"].to_pylist(), strict=True))


_START = """
UPDATE export_jobs SET attempts = attempts + 1, started_at = clock_timestamp()
WHERE tenant_id = $1 AND status = 'processing' AND id = (
    SELECT id FROM export_jobs WHERE tenant_id = $1 AND status = 'processing' ORDER BY created_at, id LIMIT 1
)
RETURNING id::text, kind, format, since, until, attempts
"""

# An erasure takes `started_at` away: the rows of the erased user may be in the file.
_COMPLETE = """
UPDATE export_jobs SET status = 'completed', rows = $3::bigint, bytes = $4::bigint, finished_at = clock_timestamp(),
    expires_at = clock_timestamp() + $5::bigint * interval '1 hour'
WHERE tenant_id = $1 AND id = $2::text::uuid AND status = 'processing' AND started_at IS NOT NULL
RETURNING id::text
"""

_FAIL = """
UPDATE export_jobs SET status = 'failed', error = $3, finished_at = clock_timestamp()
WHERE tenant_id = $1 AND id = $2::text::uuid AND status = 'processing' RETURNING id::text
"""

_WAITING = """
SELECT job.tenant_id AS id FROM export_jobs AS job
JOIN tenants ON tenants.id = job.tenant_id AND tenants.deleted_at IS NULL
WHERE job.status = 'processing' GROUP BY job.tenant_id ORDER BY min(job.created_at), job.tenant_id
"""

_EXPIRE = "UPDATE export_jobs SET status = 'expired' WHERE status = 'completed' AND expires_at <= clock_timestamp()"

_DELETE_OLD = f"""
DELETE FROM export_jobs WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM export_jobs
    WHERE status IN ('failed', 'expired')
        AND coalesce(finished_at, created_at) < now() - $1::bigint * interval '1 day'
    LIMIT {_MAX_DELETED} FOR UPDATE SKIP LOCKED
))
"""  # noqa: S608 - a constant of this module

_KEPT = """
SELECT tenant_id, id::text || '.' || format AS file FROM export_jobs WHERE status IN ('completed', 'processing')
"""
