"""Reads of the product's database, as Arrow through ADBC. With `sinks`, the only way from here to the database.

Queries name tables and columns as text; a contract test holds them against the tables of the API.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from adbc_driver_postgresql import StatementOptions, dbapi

from feature_store import columns as c
from feature_store.online import TYPE_CODES, TYPE_WEIGHTS
from feature_store.schemas import AUDIENCE, CATALOGUE_CHANGES, LAKE_INTERACTIONS, LAKE_ITEMS, RECENT_EVENTS

INTERACTION_COLUMNS = {
    c.INTERACTION_ID: "id::text",
    c.USER_ID: "user_id",
    c.ITEM_ID: "item_id",
    c.INTERACTION_TYPE: "interaction_type",
    c.VALUE: "value",
    c.TIMESTAMP: "occurred_at",
    c.INGESTED_AT: "ingested_at",
    c.RECOMMENDATION_ID: "recommendation_id::text",
}
"""Column of the lake -> SQL over the table `interactions`."""

ITEM_COLUMNS = {
    c.ITEM_ID: "id",
    c.METADATA: "metadata::text",
    c.IS_ACTIVE: "is_active",
    c.CREATED_AT: "created_at",
}
"""Column of the lake -> SQL over the table `items`."""

BATCH_ROWS = 100_000
"""Rows held in memory at a time."""


@dataclass(frozen=True)
class NewInteractions:
    """The interactions of `lower <= xid < upper_xid`, once: `batches` reads while its transaction is open."""

    upper_xid: int
    batches: Iterator[pa.RecordBatch]  # LAKE_INTERACTIONS, ordered by (ingested_at, id)


@dataclass(frozen=True)
class Catalogue:
    """Every item that is not deleted, at one catalogue version."""

    version: int
    batches: Iterator[pa.RecordBatch]  # LAKE_ITEMS, ordered by id


@contextmanager
def new_interactions(url: str, tenant_id: str, lower_xid: int) -> Iterator[NewInteractions]:
    """The interactions that committed since the export that ended at `lower_xid`.

    The upper bound is the snapshot's xmin: every transaction below it has ended, so no row can appear there later,
    and a transaction that is still open is left whole to a later export. Bound and rows are read in one snapshot.
    Raises ValueError where the database is behind the cursor, as after a restore or a change of database.
    """
    with repeatable_read(url) as cursor:
        upper = int(_value(cursor, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"))
        if upper < lower_xid:
            raise ValueError(
                f"the lake of tenant {tenant_id} ends at transaction {lower_xid}, the database has come to {upper} "
                "only: it is another database, or one restored from a backup. Move the tenant's folder out of the "
                "lake to export everything anew"
            )
        query = (
            f"SELECT {_select(INTERACTION_COLUMNS)} FROM interactions "  # noqa: S608
            "WHERE tenant_id = $1 AND xid >= $2::text::xid8 AND xid < $3::text::xid8 ORDER BY ingested_at, id"
        )
        yield NewInteractions(upper, _stream(cursor, query, (tenant_id, str(lower_xid), str(upper)), LAKE_INTERACTIONS))


@contextmanager
def catalogue(url: str, tenant_id: str) -> Iterator[Catalogue]:
    """The tenant's items and the catalogue version they are at, read in one snapshot."""
    with repeatable_read(url) as cursor:
        version = int(
            _value(cursor, "SELECT coalesce(max(version), 0) FROM catalogues WHERE tenant_id = $1", tenant_id)
        )
        query = (
            f"SELECT {_select(ITEM_COLUMNS)} FROM items "  # noqa: S608
            'WHERE tenant_id = $1 AND deleted_at IS NULL ORDER BY id COLLATE "C"'
        )
        yield Catalogue(version, _stream(cursor, query, (tenant_id,), LAKE_ITEMS))


def tenants(url: str) -> list[str]:
    """Ids of the tenants that are not deleted, sorted."""
    with repeatable_read(url) as cursor:
        cursor.execute("SELECT id FROM tenants WHERE deleted_at IS NULL ORDER BY id")
        return cursor.fetch_arrow_table().column("id").to_pylist()


def exclude_seen(url: str, tenant_id: str) -> str:
    """The tenant's own `excludeSeen`: "none", "bought" or "all". Raises LookupError for an unknown tenant."""
    with repeatable_read(url) as cursor:
        return _value(cursor, "SELECT exclude_seen FROM tenants WHERE id = $1 AND deleted_at IS NULL", tenant_id)


def count_new_interactions(url: str, tenant_id: str, lower_xid: int, at_most: int) -> int:
    """Interactions at or past `lower_xid`, those of open transactions left out; counting stops at `at_most`."""
    with repeatable_read(url) as cursor:
        return _value(
            cursor,
            "SELECT count(*) FROM (SELECT FROM interactions "
            "WHERE tenant_id = $1 AND xid >= $2::text::xid8 LIMIT $3::bigint) AS counted",
            tenant_id,
            str(lower_xid),
            at_most,
        )


def tenants_to_generate(url: str) -> list[str]:
    """Ids of the tenants that have a generation job to work off, the longest waiting first."""
    with repeatable_read(url) as cursor:
        cursor.execute(
            "SELECT job.tenant_id AS id FROM generation_jobs AS job "
            "JOIN tenants ON tenants.id = job.tenant_id AND tenants.deleted_at IS NULL "
            "WHERE job.status = 'processing' GROUP BY job.tenant_id ORDER BY min(job.created_at), job.tenant_id"
        )
        return cursor.fetch_arrow_table().column("id").to_pylist()


def audience(url: str, tenant_id: str, job_id: str) -> pa.Table:
    """The users (AUDIENCE) of a generation job's segment that have none of its recommendations yet, by id.

    Those that came after the job are left out, so that it ends.
    """
    with repeatable_read(url) as cursor:
        cursor.execute(_AUDIENCE, (tenant_id, job_id))
        return cursor.fetch_arrow_table().cast(AUDIENCE)


def recent_events(url: str, tenant_id: str, users: Sequence[str], at_most: int) -> pa.Table:
    """The newest `at_most` events of each of these users (RECENT_EVENTS), by user and then newest first."""
    with repeatable_read(url) as cursor:
        cursor.execute(_RECENT_EVENTS, (json.dumps(list(users)), tenant_id, at_most))
        return cursor.fetch_arrow_table().cast(RECENT_EVENTS)


def catalogue_changes(url: str, tenant_id: str, since: int) -> tuple[int, pa.Table]:
    """The catalogue's version, and the items that changed after version `since` (CATALOGUE_CHANGES)."""
    with repeatable_read(url) as cursor:
        # A tenant that is being deleted has no catalogue, and so no changes.
        query = "SELECT coalesce(max(version), $2::bigint) FROM catalogues WHERE tenant_id = $1"
        version = int(_value(cursor, query, tenant_id, since))
        cursor.execute(_CATALOGUE_CHANGES, (tenant_id, since))
        return version, cursor.fetch_arrow_table().cast(CATALOGUE_CHANGES)


@contextmanager
def repeatable_read(url: str) -> Iterator[dbapi.Cursor]:
    """A cursor whose queries all see the database as it was at the first of them."""
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield cursor
        finally:
            cursor.execute("ROLLBACK")


def _select(columns: Mapping[str, str]) -> str:
    return ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())


def _value(cursor: dbapi.Cursor, query: str, *parameters: Any) -> Any:
    cursor.execute(query, parameters or None)
    row = cursor.fetchone()
    if row is None:
        raise LookupError(f"no row for {parameters}: {query}")
    return row[0]


def _stream(
    cursor: dbapi.Cursor, query: str, parameters: tuple[Any, ...], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows of a query in batches: without a cursor, a query with parameters comes as one batch of any size."""
    cursor.execute(f"DECLARE rows NO SCROLL CURSOR FOR {query}", parameters)
    while True:
        cursor.adbc_statement.set_options(**{StatementOptions.USE_COPY.value: "false"})  # COPY cannot wrap a FETCH
        cursor.execute(f"FETCH FORWARD {BATCH_ROWS} FROM rows")
        table = cursor.fetch_arrow_table().cast(schema)
        if table.num_rows == 0:
            return
        yield from table.to_batches()


_AUDIENCE = f"""
SELECT users.id AS {c.USER_ID}, users.created_at AS {c.CREATED_AT}
FROM generation_jobs AS job JOIN users ON users.tenant_id = job.tenant_id
WHERE job.tenant_id = $1 AND job.id = $2::text::uuid AND users.is_active AND users.created_at <= job.created_at
    AND CASE job.user_segment
        WHEN 'active' THEN users.last_active_at >= job.created_at - interval '{c.ACTIVE_DAYS} days'
        WHEN 'new' THEN (
            SELECT count(*) FROM (
                SELECT FROM interactions AS event
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
"""  # noqa: S608 - the numbers are of this code base

TYPE_CODE_SQL = " ".join(f"WHEN '{name}' THEN {code}" for name, code in TYPE_CODES.items())
TYPE_WEIGHT_SQL = " ".join(f"WHEN '{name}' THEN {weight}" for name, weight in TYPE_WEIGHTS.items())

# The order of events within a user is that of a request's history, newest first.
_RECENT_EVENTS = f"""
SELECT (asked.place - 1)::int AS "{c.USER}", event.{c.ITEM_ID}, event.type::smallint AS {c.TYPE}, event.{c.WEIGHT},
    event.{c.TIMESTAMP}
FROM jsonb_array_elements_text($1::text::jsonb) WITH ORDINALITY AS asked (id, place)
CROSS JOIN LATERAL (
    SELECT
        item_id,
        CASE interaction_type {TYPE_CODE_SQL} END AS type,
        coalesce(value, CASE interaction_type {TYPE_WEIGHT_SQL} END)::real AS weight,
        (extract(epoch FROM occurred_at) * 1000000)::bigint AS timestamp,
        row_number() OVER (ORDER BY occurred_at DESC, item_id COLLATE "C" DESC) AS age
    FROM interactions WHERE tenant_id = $2 AND user_id = asked.id
    ORDER BY occurred_at DESC, item_id COLLATE "C" DESC LIMIT $3::bigint
) AS event
ORDER BY asked.place, event.age
"""  # noqa: S608 - the numbers are of this code base

_CATALOGUE_CHANGES = f"""
SELECT id AS {c.ITEM_ID}, version AS {c.CATALOGUE_VERSION}, is_active AND deleted_at IS NULL AS {c.IS_ACTIVE},
    CASE WHEN deleted_at IS NULL THEN metadata::text END AS {c.METADATA}
FROM items WHERE tenant_id = $1 AND version > $2::bigint
"""  # noqa: S608
