"""Writes of a generation: the state of its jobs, and its recommendations as Arrow.

The SQL names tables and columns as text, which a contract test holds against the API's tables.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_postgresql import dbapi

from feature_store import columns as c
from feature_store.schemas import RECOMMENDATIONS

MAX_ATTEMPTS = 3
"""Starts of a generation job without any progress before it fails."""


class JobGoneError(Exception):
    """The job does not exist any more or is not active, for example after the deletion of its tenant."""


@dataclass(frozen=True)
class ClaimedJob:
    """A generation job that this process works on: `count` recommendations of a family for each user of a segment."""

    id: str
    algorithm: str
    count: int
    attempt: int  # 1 for the first start since the job last made progress


class Generation:
    """Writes the state and the recommendations of a tenant's jobs while it holds their lock: see `generating`."""

    def __init__(self, connection: dbapi.Connection, tenant_id: str) -> None:
        self._connection = connection
        self._tenant_id = tenant_id

    def next_job(self) -> ClaimedJob | None:
        """Start or continue the tenant's oldest unfinished job. Fails a job that made no progress in MAX_ATTEMPTS."""
        while True:
            row = self._change(_START)
            if row is None:
                return None
            job = ClaimedJob(*row)
            if job.attempt <= MAX_ATTEMPTS:
                return job
            self.fail(
                job, f"it broke off {MAX_ATTEMPTS} times without any progress; the pipeline's log has the reasons"
            )

    def users_allowed(self, job: ClaimedJob) -> int | None:
        """How many users the tenant's budget allows the job to score, as the API saw it last. None: no bound.

        Raises JobGoneError.
        """
        allowed: int | None = self._require(self._change(_ALLOWED, job.id))[0]
        return allowed

    def begin(self, job: ClaimedJob, release: str, users_left: int) -> None:
        """Store the release and how many users are left. Raises JobGoneError."""
        self._require(self._change(_BEGIN, job.id, release, users_left))

    def write(self, job: ClaimedJob, release: str, recommendations: pa.Table, users: int) -> int:
        """Store recommendations (RECOMMENDATIONS) and the job's progress in one transaction.

        Recommendations of users and items that were deleted meanwhile are left out.

        Args:
            users: how many users they are for, those without any included.

        Returns how many recommendations were stored. Raises JobGoneError.
        """
        with self._transaction() as cursor:
            # The job's row is locked first, so that this transaction and a deletion of the tenant run in turn.
            self._require(_row(cursor, _PROGRESS, self._tenant_id, job.id, users))
            cursor.execute(_STAGE)
            if recommendations.num_rows:
                data = recommendations.cast(RECOMMENDATIONS)
                cursor.adbc_ingest("staged_recommendations", data, mode="append", temporary=True)
            parameters = (self._tenant_id, job.id, job.algorithm, release)
            written = int(self._require(_row(cursor, _WRITE, *parameters))[0])
            self._require(_row(cursor, _WRITTEN, self._tenant_id, job.id, written))
        return written

    def write_file(
        self, job: ClaimedJob, recommendations: pa.Table, users: int, put: Callable[[pa.Table], None]
    ) -> int:
        """Store recommendations in a file, and the job's progress when the file is there.

        Args:
            recommendations: as in `write`, and left out as there. Their users are not erased before the file is there.
            users: as in `write`.
            put: writes the recommendations that are left.

        Returns how many were stored. Raises JobGoneError.
        """
        with self._transaction() as cursor:
            self._require(_row(cursor, _PROGRESS, self._tenant_id, job.id, users))
            owners = _keyed(cursor, _OWNERS, self._tenant_id, recommendations[c.USER_ID])
            items = _keyed(cursor, _SHOWN_ITEMS, self._tenant_id, recommendations[c.ITEM_ID])
            places = pc.index_in(recommendations[c.USER_ID], value_set=owners[c.USER_ID].combine_chunks())
            created_at = pc.take(owners[c.CREATED_AT].combine_chunks(), places)  # null without such a user
            same_user = pc.fill_null(pc.equal(created_at, recommendations[c.CREATED_AT]), fill_value=False)
            shown = pc.is_in(recommendations[c.ITEM_ID], value_set=items[c.ITEM_ID].combine_chunks())
            left = recommendations.filter(pc.and_(same_user, shown))
            put(left)
            self._require(_row(cursor, _WRITTEN, self._tenant_id, job.id, left.num_rows))
        return left.num_rows

    def count_files(self, job: ClaimedJob, recommendations: int, users: int) -> None:
        """Count what files hold of a job that goes on, also where its process was killed before it counted the last.

        Raises JobGoneError.
        """
        self._require(self._change(_COUNT_FILES, job.id, recommendations, users))

    def complete(self, job: ClaimedJob) -> None:
        """Mark the job as completed. Raises JobGoneError."""
        self._require(self._change(_FINISH, job.id, "completed", None))

    def fail(self, job: ClaimedJob, reason: str) -> None:
        """Mark the job as failed, with a reason for the user of the API. Raises JobGoneError."""
        self._require(self._change(_FINISH, job.id, "failed", reason))

    def _change(self, statement: str, *parameters: Any) -> tuple[Any, ...] | None:
        with self._transaction() as cursor:
            return _row(cursor, statement, self._tenant_id, *parameters)

    def _require(self, row: tuple[Any, ...] | None) -> tuple[Any, ...]:
        if row is None:
            raise JobGoneError(f"the job is gone: was the tenant {self._tenant_id} deleted?")
        return row

    @contextmanager
    def _transaction(self) -> Iterator[dbapi.Cursor]:
        with self._connection.cursor() as cursor:
            try:
                yield cursor
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()


@contextmanager
def generating(url: str, tenant_id: str) -> Iterator[Generation | None]:
    """Hold the tenant's generation lock until the block or this process ends; None where another process holds it."""
    with dbapi.connect(url) as connection:
        with connection.cursor() as cursor:
            row = _row(cursor, "SELECT pg_try_advisory_lock(hashtextextended('generation ' || $1, 0))", tenant_id)
        connection.commit()  # the lock belongs to the session and ends with the connection
        yield Generation(connection, tenant_id) if row is not None and row[0] else None


def _keyed(cursor: dbapi.Cursor, statement: str, tenant_id: str, ids: pa.ChunkedArray) -> pa.Table:
    """The rows of a statement about these ids, each once."""
    cursor.execute(statement, (tenant_id, json.dumps(ids.unique().to_pylist())))
    return cursor.fetch_arrow_table()


def _row(cursor: dbapi.Cursor, statement: str, *parameters: Any) -> tuple[Any, ...] | None:
    cursor.execute(statement, parameters)
    row: tuple[Any, ...] | None = cursor.fetchone()
    return row


_START = """
UPDATE generation_jobs SET attempts = attempts + 1, started_at = coalesce(started_at, now())
WHERE tenant_id = $1 AND status = 'processing' AND id = (
    SELECT id FROM generation_jobs WHERE tenant_id = $1 AND status = 'processing' ORDER BY created_at, id LIMIT 1
)
RETURNING id::text, algorithm, count, attempts
"""

_ALLOWED = "SELECT users_allowed FROM generation_jobs WHERE tenant_id = $1 AND id = $2::text::uuid"

# Before a job's first start, its total is only an estimate.
_BEGIN = """
UPDATE generation_jobs AS job SET
    release = $3,
    users_total = counted.total,
    users_done = counted.total - $4::bigint
FROM (
    SELECT id, CASE WHEN release IS NULL THEN $4::bigint ELSE greatest(users_total, $4::bigint) END AS total
    FROM generation_jobs WHERE tenant_id = $1
) AS counted
WHERE job.tenant_id = $1 AND job.id = $2::text::uuid AND job.status = 'processing' AND counted.id = job.id
RETURNING job.id::text
"""

_PROGRESS = """
UPDATE generation_jobs SET
    users_done = users_done + $3::bigint, users_scored = users_scored + $3::bigint, attempts = 0
WHERE tenant_id = $1 AND id = $2::text::uuid AND status = 'processing' RETURNING id::text
"""

_WRITTEN = """
UPDATE generation_jobs SET recommendations_written = recommendations_written + $3::bigint
WHERE tenant_id = $1 AND id = $2::text::uuid RETURNING id::text
"""

_COUNT_FILES = """
UPDATE generation_jobs SET
    recommendations_written = greatest(recommendations_written, $3::bigint),
    users_scored = greatest(users_scored, $4::bigint)
WHERE tenant_id = $1 AND id = $2::text::uuid AND status = 'processing' RETURNING id::text
"""

# The lock keeps these users from being erased until the transaction ends.
_OWNERS = f"""
SELECT id AS {c.USER_ID}, created_at AS {c.CREATED_AT} FROM users
WHERE tenant_id = $1 AND id IN (SELECT jsonb_array_elements_text($2::text::jsonb)) FOR KEY SHARE
"""  # noqa: S608 - constants of this code base

_SHOWN_ITEMS = f"""
SELECT id AS {c.ITEM_ID} FROM items
WHERE tenant_id = $1 AND id IN (SELECT jsonb_array_elements_text($2::text::jsonb)) AND is_active AND deleted_at IS NULL
"""  # noqa: S608

_FINISH = """
UPDATE generation_jobs SET status = $3, error = $4, finished_at = now()
WHERE tenant_id = $1 AND id = $2::text::uuid AND status = 'processing' RETURNING id::text
"""

_STAGE = f"""
CREATE TEMP TABLE staged_recommendations (
    {c.USER_ID} text, {c.CREATED_AT} timestamptz, {c.ITEM_ID} text, {c.RANK} smallint, {c.SCORE} float8, {c.REASON} text
) ON COMMIT DROP
"""

# The lock waits for a running erasure of a user, whose row is then missing. A user with another `created_at` is a new
# user with the same id.
_WRITE = f"""
WITH owner AS (
    SELECT id, created_at FROM users
    WHERE tenant_id = $1 AND id IN (SELECT {c.USER_ID} FROM staged_recommendations) FOR KEY SHARE
), written AS (
    INSERT INTO recommendations (tenant_id, user_id, item_id, rank, score, algorithm, reason, release, job_id)
    SELECT $1, owner.id, item.id, staged.{c.RANK}, staged.{c.SCORE}, $3, staged.{c.REASON}, $4, $2::text::uuid
    FROM staged_recommendations AS staged
    JOIN owner ON owner.id = staged.{c.USER_ID} AND owner.created_at = staged.{c.CREATED_AT}
    JOIN items AS item ON item.tenant_id = $1 AND item.id = staged.{c.ITEM_ID}
    WHERE item.is_active AND item.deleted_at IS NULL
    RETURNING 1
)
SELECT count(*) FROM written
"""  # noqa: S608
