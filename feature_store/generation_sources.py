"""Reads for a generation: the tenants with waiting jobs, a job's users and their recent events."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from adbc_driver_postgresql import dbapi

from feature_store import columns as c
from feature_store.interaction_types import SeenPolicy, seen_policy
from feature_store.online import ALL_INTERACTIONS, NEWEST_FIRST_SQL, newest_events_sql
from feature_store.schemas import AUDIENCE, CATALOGUE_CHANGES, RECENT_EVENTS
from feature_store.sources import EVENT_SQL


class GenerationSource:
    """The reads of one tenant's generation over one connection: see `generation_source`."""

    def __init__(self, connection: dbapi.Connection, tenant_id: str) -> None:
        self._connection = connection
        self._tenant_id = tenant_id

    def exclude_seen(self) -> SeenPolicy:
        """The tenant's own `excludeSeen`."""
        found = self._read("SELECT exclude_seen FROM tenants WHERE id = $1")
        return seen_policy(found["exclude_seen"][0].as_py())

    def audience(self, job_id: str) -> pa.Table:
        """The users (AUDIENCE) of a job's segment that have none of its recommendations yet, by id.

        Users who were created after the job are left out, so that the job ends.
        """
        return self._read(_AUDIENCE, job_id).cast(AUDIENCE)

    def recent_events(self, users: Sequence[str], at_most: int) -> pa.Table:
        """The newest `at_most` events of each of these users (RECENT_EVENTS), by user and then newest first."""
        return self._read(_RECENT_EVENTS, json.dumps(list(users)), at_most).cast(RECENT_EVENTS)

    def catalogue_changes(self, since: int) -> tuple[int, pa.Table]:
        """The catalogue's version, and the items that changed after version `since` (CATALOGUE_CHANGES).

        An item may be newer than the version, and is then among the next changes again. A tenant that is being deleted
        has no catalogue, and so no changes.
        """
        query = "SELECT coalesce(max(version), $2::bigint) AS version FROM catalogues WHERE tenant_id = $1"
        version: int = self._read(query, since)["version"][0].as_py()
        return version, self._read(_CATALOGUE_CHANGES, since).cast(CATALOGUE_CHANGES)

    def _read(self, query: str, *parameters: Any) -> pa.Table:
        with self._connection.cursor() as cursor:
            cursor.execute(query, (self._tenant_id, *parameters))
            return cursor.fetch_arrow_table()


@contextmanager
def generation_source(url: str, tenant_id: str) -> Iterator[GenerationSource]:
    """The reads of a tenant's generation. They share a connection, since connecting takes longer than most reads."""
    with dbapi.connect(url, autocommit=True) as connection:
        yield GenerationSource(connection, tenant_id)


def tenants_to_generate(url: str) -> list[str]:
    """Ids of the tenants with an unfinished generation job, the longest waiting first."""
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT job.tenant_id AS id FROM generation_jobs AS job "
            "JOIN tenants ON tenants.id = job.tenant_id AND tenants.deleted_at IS NULL "
            "WHERE job.status = 'processing' GROUP BY job.tenant_id ORDER BY min(job.created_at), job.tenant_id"
        )
        return cursor.fetch_arrow_table().column("id").to_pylist()


def jobs_to_keep(url: str, days: int) -> set[tuple[str, str]]:
    """Tenant and id of the jobs whose files are kept: those that go on, or completed at most so many days ago."""
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(_KEPT, (days,))
        found = cursor.fetch_arrow_table()
    return set(zip(found["tenant_id"].to_pylist(), found["id"].to_pylist(), strict=True))


_KEPT = """
SELECT tenant_id, id::text AS id FROM generation_jobs
WHERE status = 'processing' OR (status = 'completed' AND finished_at > now() - $1::bigint * interval '1 day')
"""

_AUDIENCE = f"""
SELECT users.id AS {c.USER_ID}, users.created_at AS {c.CREATED_AT}
FROM generation_jobs AS job JOIN users ON users.tenant_id = job.tenant_id
WHERE job.tenant_id = $1 AND job.id = $2::text::uuid AND users.is_active AND users.created_at <= job.created_at
    AND CASE job.user_segment
        WHEN 'active' THEN users.last_active_at >= job.created_at - interval '{c.ACTIVE_DAYS} days'
        WHEN 'new' THEN (
            SELECT count(*) FROM (
                SELECT FROM {ALL_INTERACTIONS} AS event
                WHERE event.tenant_id = users.tenant_id AND event.user_id = users.id LIMIT {c.NEW_BELOW}
            ) AS counted
        ) < {c.NEW_BELOW}
        ELSE true
    END
    AND NOT EXISTS (
        SELECT FROM recommendations AS written
        WHERE written.tenant_id = job.tenant_id AND written.job_id = job.id AND written.user_id = users.id
    )
ORDER BY users.id
"""  # noqa: S608 - constants of this code base

# A user's events have the order of a request's history, newest first.
_RECENT_EVENTS = f"""
SELECT (users.place - 1)::int AS "{c.USER}", event.{c.ITEM_ID}, event.type AS {c.TYPE}, event.{c.WEIGHT},
    event.{c.TIMESTAMP}
FROM jsonb_array_elements_text($2::text::jsonb) WITH ORDINALITY AS users (id, place)
CROSS JOIN LATERAL (
    SELECT
        {EVENT_SQL},
        row_number() OVER (ORDER BY {NEWEST_FIRST_SQL}) AS age
    FROM ({newest_events_sql("$1", "users.id", "$3::bigint")}) AS of_user
    ORDER BY {NEWEST_FIRST_SQL} LIMIT $3::bigint
) AS event
ORDER BY users.place, event.age
"""  # noqa: S608 - constants of this code base

_CATALOGUE_CHANGES = f"""
SELECT id AS {c.ITEM_ID}, version AS {c.CATALOGUE_VERSION}, is_active AND deleted_at IS NULL AS {c.IS_ACTIVE},
    CASE WHEN deleted_at IS NULL THEN metadata::text END AS {c.METADATA}
FROM items WHERE tenant_id = $1 AND version > $2::bigint
"""  # noqa: S608
