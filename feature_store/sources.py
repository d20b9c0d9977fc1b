"""Reads of the product's database, as Arrow through ADBC.

The modules `*_sources` and `*_sinks` of this package are the only way from the pipeline to the database. Their SQL
names tables and columns as text, which a contract test holds against the API's tables.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
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

BATCH_ROWS = 100_000
"""Rows held in memory at a time."""


@dataclass(frozen=True)
class NewInteractions:
    """The interactions of `lower <= xid < upper_xid`. `batches` can be read once, while the transaction is open."""

    upper_xid: int
    batches: Iterator[pa.RecordBatch]  # LAKE_INTERACTIONS, ordered by (ingested_at, id)
    tombstones: pa.Table  # TOMBSTONES: all that no earlier export has seen, perhaps others too


@dataclass(frozen=True)
class CatalogueExport:
    """All items that are not deleted, at one catalogue version. `batches` can be read once."""

    version: int
    batches: Iterator[pa.RecordBatch]  # LAKE_ITEMS, ordered by id


@contextmanager
def read_new_interactions(url: str, tenant_id: str, lower_xid: int) -> Iterator[NewInteractions]:
    """The interactions that were committed since the export that ended at `lower_xid`.

    The upper bound is the snapshot's xmin. All transactions below it have ended, so that no row can appear there
    later; the rows of an open transaction are all left to a later export. Bound and rows are read in one snapshot.
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
        # A tombstone that an earlier export did not see was written at or after its bound. Tombstones have no upper
        # bound, so that an erasure waits for no other transaction.
        cursor.execute(
            "SELECT user_id, erased_at FROM tombstones WHERE tenant_id = $1 AND xid >= $2::text::xid8",
            (tenant_id, str(lower_xid)),
        )
        tombstones = cursor.fetch_arrow_table().cast(TOMBSTONES)
        query = (
            f"SELECT {_select(INTERACTION_COLUMNS)} FROM interactions "  # noqa: S608
            "WHERE tenant_id = $1 AND xid >= $2::text::xid8 AND xid < $3::text::xid8 ORDER BY ingested_at, id"
        )
        batches = _stream(cursor, query, (tenant_id, str(lower_xid), str(upper)), LAKE_INTERACTIONS)
        yield NewInteractions(upper, batches, tombstones)


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
        yield CatalogueExport(version, _stream(cursor, query, (tenant_id,), LAKE_ITEMS))


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


def oldest_erasure(url: str, tenant_id: str, lower_xid: int) -> datetime | None:
    """The time of the oldest erasure that no export has seen, where exports have come to `lower_xid`; None without."""
    with repeatable_read(url) as cursor:
        cursor.execute(
            "SELECT min(erased_at) AS oldest FROM tombstones WHERE tenant_id = $1 AND xid >= $2::text::xid8",
            (tenant_id, str(lower_xid)),
        )
        oldest: datetime | None = cursor.fetch_arrow_table()["oldest"][0].as_py()
        return oldest


def exclude_seen(url: str, tenant_id: str) -> SeenPolicy:
    """The tenant's own `excludeSeen`. Raises LookupError for an unknown tenant."""
    with repeatable_read(url) as cursor:
        query = "SELECT exclude_seen FROM tenants WHERE id = $1 AND deleted_at IS NULL"
        return seen_policy(_value(cursor, query, tenant_id))


def count_new_interactions(url: str, tenant_id: str, lower_xid: int, at_most: int) -> int:
    """The number of committed interactions from `lower_xid` on. Counting stops at `at_most`."""
    with repeatable_read(url) as cursor:
        return _value(
            cursor,
            "SELECT count(*) FROM (SELECT FROM interactions "
            "WHERE tenant_id = $1 AND xid >= $2::text::xid8 LIMIT $3::bigint) AS counted",
            tenant_id,
            str(lower_xid),
            at_most,
        )


@contextmanager
def repeatable_read(url: str) -> Iterator[dbapi.Cursor]:
    """A cursor whose queries all see the same snapshot of the database."""
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
    """The rows of a query in batches. Without a server-side cursor, ADBC returns them as one batch of any size."""
    cursor.execute(f"DECLARE rows NO SCROLL CURSOR FOR {query}", parameters)
    while True:
        cursor.adbc_statement.set_options(**{StatementOptions.USE_COPY.value: "false"})  # COPY cannot wrap a FETCH
        cursor.execute(f"FETCH FORWARD {BATCH_ROWS} FROM rows")
        table = cursor.fetch_arrow_table().cast(schema)
        if table.num_rows == 0:
            return
        yield from table.to_batches()
