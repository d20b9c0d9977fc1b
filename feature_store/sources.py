"""Reads of the product's database, as Arrow through ADBC.

The modules `*_sources` and `*_sinks` of this package are the only way from the pipeline to the database. Their SQL
names tables and columns as text, which a contract test holds against the API's tables.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
from adbc_driver_postgresql import StatementOptions, dbapi

from feature_store import columns as c
from feature_store.interaction_types import EVENT_WEIGHT_SQL, TYPE_CODE_SQL, SeenPolicy, seen_policy
from feature_store.schemas import LAKE_INTERACTIONS, LAKE_ITEMS, TOMBSTONES

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

EVENT_SQL = (
    f"item_id, ({TYPE_CODE_SQL})::smallint AS type, {EVENT_WEIGHT_SQL}::real AS weight, "
    "(extract(epoch FROM occurred_at) * 1000000)::bigint AS timestamp"
)
"""Columns of an event, from the table `interactions`. The timestamp is in microseconds since the epoch."""

ROWS_PER_FETCH = 100_000
"""Rows held in memory at a time."""


@dataclass(frozen=True)
class NewInteractions:
    """The interactions of `lower_xid <= xid < upper_xid`. `batches` can be read once, while the transaction is open."""

    cluster: str  # whose transaction ids these are
    is_continuation: bool  # False: the cursor is of another cluster, so `lower_xid` is 0 and the rows are all there are
    lower_xid: int
    upper_xid: int
    batches: Iterator[pa.RecordBatch]  # LAKE_INTERACTIONS, ordered by (ingested_at, id)
    tombstones: pa.Table  # TOMBSTONES: all that no earlier export has seen, perhaps others too


@dataclass(frozen=True)
class CatalogueExport:
    """All items that are not deleted, at one catalogue version. `batches` can be read once."""

    version: int
    batches: Iterator[pa.RecordBatch]  # LAKE_ITEMS, ordered by id


@contextmanager
def read_new_interactions(
    url: str, tenant_id: str, lower_xid: int, cluster: str | None = None
) -> Iterator[NewInteractions]:
    """The interactions that were committed since the export that ended at `lower_xid` of `cluster`.

    The upper bound is the snapshot's xmin. All transactions below it have ended, so that no row can appear there
    later; the rows of an open transaction are all left to a later export. Bound and rows are read in one snapshot.
    Call `adopt_cluster` before.

    Args:
        cluster: None where the cursor was written before clusters were recorded.
    """
    with repeatable_read(url) as cursor:
        upper = int(_value(cursor, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"))
        present = str(_value(cursor, "SELECT cluster_identity()"))
        is_continuation = cluster in {None, present} and lower_xid <= upper
        lower_xid = lower_xid if is_continuation else 0
        # A tombstone that an earlier export did not see was written at or after its bound. Tombstones have no upper
        # bound, so that an erasure waits for no other transaction.
        cursor.execute(
            "SELECT user_id, erased_at FROM tombstones WHERE tenant_id = $1 AND xid >= $2::text::xid8",
            (tenant_id, str(lower_xid)),
        )
        tombstones = cursor.fetch_arrow_table().cast(TOMBSTONES)
        rows = "interactions WHERE tenant_id = $1 AND xid >= $2::text::xid8 AND xid < $3::text::xid8"
        if lower_xid == 0:  # the first export, which reads the archive too, as the lake of an earlier one may be lost
            rows = f"({_WITH_ARCHIVE.format(rows=rows)}) AS stored"
        query = f"SELECT {_select(INTERACTION_COLUMNS)} FROM {rows} ORDER BY ingested_at, id"  # noqa: S608
        batches = stream_rows(cursor, query, (tenant_id, str(lower_xid), str(upper)), LAKE_INTERACTIONS)
        yield NewInteractions(present, is_continuation, lower_xid, upper, batches, tombstones)


@contextmanager
def read_ingested_since(url: str, tenant_id: str, day: date, upper_xid: int) -> Iterator[Iterator[pa.RecordBatch]]:
    """The interactions that arrived from a day (UTC) on, LAKE_INTERACTIONS ordered by (ingested_at, id).

    They can be read once. upper_xid: those of this transaction and later ones are left out.
    """
    rows = _WITH_ARCHIVE.format(rows="interactions WHERE tenant_id = $1 AND xid < $2::text::xid8")
    query = (
        f"SELECT {_select(INTERACTION_COLUMNS)} FROM ({rows}) AS stored "  # noqa: S608
        "WHERE ingested_at >= $3::text::timestamptz ORDER BY ingested_at, id"
    )
    with repeatable_read(url) as cursor:
        parameters = (tenant_id, str(upper_xid), f"{day.isoformat()} 00:00:00+00")
        yield stream_rows(cursor, query, parameters, LAKE_INTERACTIONS)


def adopt_cluster(url: str) -> str:
    """Make a database that was restored in another cluster count that one's transactions; returns its identity.

    Until then restored rows hold the transaction ids of the cluster that they were written in. It is cheap where
    nothing has changed.
    """
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        return str(_value(cursor, "SELECT adopt_cluster()"))


@contextmanager
def read_catalogue(url: str, tenant_id: str) -> Iterator[CatalogueExport]:
    """The tenant's items and the catalogue version they are at, read in one snapshot."""
    with repeatable_read(url) as cursor:
        version = int(
            _value(cursor, "SELECT coalesce(max(version), 0) FROM catalogues WHERE tenant_id = $1", tenant_id)
        )
        query = (
            f"SELECT {_select(ITEM_COLUMNS)} FROM items "  # noqa: S608
            'WHERE tenant_id = $1 AND deleted_at IS NULL ORDER BY id COLLATE "C"'
        )
        yield CatalogueExport(version, stream_rows(cursor, query, (tenant_id,), LAKE_ITEMS))


def tenants(url: str) -> list[str]:
    """Ids of the tenants that are not deleted, sorted."""
    with repeatable_read(url) as cursor:
        cursor.execute("SELECT id FROM tenants WHERE deleted_at IS NULL ORDER BY id")
        return cursor.fetch_arrow_table().column("id").to_pylist()


def deleted_tenants(url: str) -> list[str]:
    """Ids of the deleted tenants, sorted."""
    with repeatable_read(url) as cursor:
        cursor.execute("SELECT id FROM tenants WHERE deleted_at IS NOT NULL ORDER BY id")
        return cursor.fetch_arrow_table().column("id").to_pylist()


def oldest_erasure(url: str, tenant_id: str, lower_xid: int, cluster: str | None = None) -> datetime | None:
    """The time of the oldest erasure that no export has seen, where exports have come to `lower_xid`; None without.

    Where they came to it in another cluster, none has been seen.
    """
    with repeatable_read(url) as cursor:
        cursor.execute(
            "SELECT min(erased_at) AS oldest FROM tombstones WHERE tenant_id = $1 AND xid >= $2::text::xid8",
            (tenant_id, str(_here(cursor, lower_xid, cluster))),
        )
        oldest: datetime | None = cursor.fetch_arrow_table()["oldest"][0].as_py()
        return oldest


def exclude_seen(url: str, tenant_id: str) -> SeenPolicy:
    """The tenant's own `excludeSeen`. Raises LookupError for an unknown tenant."""
    with repeatable_read(url) as cursor:
        query = "SELECT exclude_seen FROM tenants WHERE id = $1 AND deleted_at IS NULL"
        return seen_policy(_value(cursor, query, tenant_id))


@dataclass(frozen=True)
class Unexported:
    """What no export of a tenant has seen yet."""

    tenant_id: str
    interactions: int  # counted up to a bound
    erasures: int
    oldest_erasure: datetime | None


def unexported(url: str, cursors: Mapping[str, tuple[int, str | None]], at_most: int) -> list[Unexported]:
    """What exports have not seen, of many tenants in one query.

    Args:
        cursors: by tenant, how far its exports have come: a transaction id, and the cluster that it is of.
        at_most: counting of a tenant's interactions stops there.
    """
    with repeatable_read(url) as cursor:
        places = [
            {"tenant_id": tenant_id, "xid": str(_here(cursor, xid, cluster))}
            for tenant_id, (xid, cluster) in cursors.items()
        ]
        cursor.execute(_UNEXPORTED, (json.dumps(places), at_most))
        rows = cursor.fetch_arrow_table().to_pylist()
    return [Unexported(**row) for row in rows]


_ROW = "id, user_id, item_id, interaction_type, value, occurred_at, ingested_at, recommendation_id"
_WITH_ARCHIVE = f"SELECT {_ROW} FROM {{rows}} UNION ALL SELECT {_ROW} FROM archived_events WHERE tenant_id = $1"  # noqa: S608

_UNEXPORTED = """
SELECT place.tenant_id, counted.interactions, erased.erasures, erased.oldest_erasure
FROM json_to_recordset($1::text::json) AS place (tenant_id text, xid text)
CROSS JOIN LATERAL (
    SELECT count(*) AS interactions FROM (
        SELECT FROM interactions
        WHERE interactions.tenant_id = place.tenant_id AND interactions.xid >= place.xid::xid8 LIMIT $2::bigint
    ) AS waiting
) AS counted
CROSS JOIN LATERAL (
    SELECT count(*) AS erasures, min(erased_at) AS oldest_erasure FROM tombstones
    WHERE tombstones.tenant_id = place.tenant_id AND tombstones.xid >= place.xid::xid8
) AS erased
ORDER BY place.tenant_id
"""


@contextmanager
def repeatable_read(url: str) -> Iterator[dbapi.Cursor]:
    """A cursor whose queries all see the same snapshot of the database."""
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield cursor
        finally:
            cursor.execute("ROLLBACK")


def _here(cursor: dbapi.Cursor, xid: int, cluster: str | None) -> int:
    """The bound where it is of this cluster, and 0 where it is of another."""
    return xid if cluster is None or cluster == _value(cursor, "SELECT cluster_identity()") else 0


def _select(columns: Mapping[str, str]) -> str:
    return ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())


def _value(cursor: dbapi.Cursor, query: str, *parameters: Any) -> Any:
    cursor.execute(query, parameters or None)
    row = cursor.fetchone()
    if row is None:
        raise LookupError(f"no row for {parameters}: {query}")
    return row[0]


def stream_rows(
    cursor: dbapi.Cursor, query: str, parameters: tuple[Any, ...], schema: pa.Schema, batch_rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a query within a transaction (`repeatable_read`), by default in batches of `ROWS_PER_FETCH`.

    Without a server-side cursor, ADBC returns them as one batch of any size.
    """
    cursor.execute(f"DECLARE rows NO SCROLL CURSOR FOR {query}", parameters)
    while True:
        cursor.adbc_statement.set_options(**{StatementOptions.USE_COPY.value: "false"})  # COPY cannot wrap a FETCH
        cursor.execute(f"FETCH FORWARD {batch_rows or ROWS_PER_FETCH} FROM rows")
        table = cursor.fetch_arrow_table().cast(schema)
        if table.num_rows == 0:
            return
        yield from table.to_batches()
