"""Brings a tenant's lake in line with a database that was restored, or that another cluster holds now.

The cursor's transaction ids say nothing there, so rows are compared by the ids of interactions:

- Rows of erased users go, by all tombstones that the database holds.
- Rows that the database does not have go where they are later than the moment that it was restored to. Older ones stay:
  the database no longer holds them, because it keeps rows for a limited time. The moment is the arrival of the newest
  row that both have, since the lake cannot have rows that arrived after the restore.
- Rows that the lake does not have are added.

A database that has none of the lake's rows is taken for another one: a wrong `DATABASE_URL` must not empty a lake.

An interruption leaves the cursor where it was, so that the next export begins anew; each step may be repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store import columns as c
from feature_store.erasure import without_erased
from feature_store.lake import TenantLake, write_parquet
from feature_store.schemas import LAKE_INTERACTIONS
from feature_store.sources import NewInteractions

_BATCH_ROWS = 100_000

_RESTORED_TO = f"""
SELECT max(lake.{c.INGESTED_AT})
FROM read_parquet(?, hive_partitioning = false) AS lake
SEMI JOIN read_parquet(?, hive_partitioning = false) USING ({c.INTERACTION_ID})
"""  # noqa: S608 - constants of this code base

_LOST = f"""
SELECT lake.filename AS file, lake.{c.INTERACTION_ID}
FROM read_parquet(?, filename = true, hive_partitioning = false) AS lake
ANTI JOIN read_parquet(?, hive_partitioning = false) USING ({c.INTERACTION_ID})
WHERE lake.{c.INGESTED_AT} > ?
"""  # noqa: S608

_MISSING = f"""
SELECT stored.* FROM read_parquet(?, hive_partitioning = false) AS stored
ANTI JOIN read_parquet(?, hive_partitioning = false) USING ({c.INTERACTION_ID})
ORDER BY {c.INGESTED_AT}, {c.INTERACTION_ID}
"""  # noqa: S608


class UnrelatedDatabaseError(RuntimeError):
    """The lake and the database have no row in common."""


@dataclass(frozen=True)
class Reconciled:
    """Rows that a reconciliation added to the lake and removed from it, beside those of erased users."""

    added: int
    removed: int


def reconcile(
    lake: TenantLake, database: NewInteractions, erase_elsewhere: Callable[[pa.Table], object] | None = None
) -> Reconciled:
    """Make the lake hold what the database does, and move its cursor into the database's cluster.

    Call it within `exporting`.

    Args:
        database: all interactions and tombstones of the tenant.
        erase_elsewhere: called with the tombstones once rows are gone from the lake, before the cursor moves.

    Raises UnrelatedDatabaseError where the lake holds rows of users who are not erased, and the database none of them.
    """
    with lake.storage.work_folder() as work:
        rows = work / "database.parquet"
        write_parquet(rows, without_erased(database.batches, database.tombstones), LAKE_INTERACTIONS)
        with duckdb.connect(config={"temp_directory": str(work / "spill")}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            _require_related(lake, rows, database.tombstones, connection)
            lake.erase(database.tombstones)
            removed = _remove_lost(lake, rows, connection)
            if erase_elsewhere is not None:
                erase_elsewhere(database.tombstones)
            # DuckDB reads no empty list of files; the database's rows are compared with none of their own then.
            present = [str(file) for file in lake.interaction_files()] or [str(_empty(work))]
            missing = connection.sql(_MISSING, params=[str(rows), present]).to_arrow_reader(_BATCH_ROWS)
            added = lake.begin_generation(missing, database.upper_xid, database.cluster)
    return Reconciled(added, removed)


def _require_related(lake: TenantLake, rows: Path, tombstones: pa.Table, connection: duckdb.DuckDBPyConnection) -> None:
    files = lake.interaction_files()
    if not files or _restored_to(files, rows, connection) is not None:
        return
    for file in files:
        with pq.ParquetFile(file) as parquet:
            if any(batch.num_rows for batch in without_erased(parquet.iter_batches(), tombstones)):
                raise UnrelatedDatabaseError(
                    f"the database has none of the interactions in the lake of {lake.tenant_id}: is DATABASE_URL "
                    f"right? If it was restored to a moment before them, move {lake.folder} away"
                )


def _restored_to(files: list[Path], rows: Path, connection: duckdb.DuckDBPyConnection) -> datetime | None:
    """The arrival of the newest row that both have; None where they share none."""
    ((moment,),) = connection.sql(_RESTORED_TO, params=[[str(file) for file in files], str(rows)]).fetchall()
    return cast(datetime | None, moment)


def _remove_lost(lake: TenantLake, rows: Path, connection: duckdb.DuckDBPyConnection) -> int:
    """Remove what is later than the moment of the restore and not in the database. Returns the number of rows."""
    by_key = lake.interactions_by_key()
    restored_to = _restored_to(list(by_key.values()), rows, connection) if by_key else None
    if restored_to is None:
        return 0
    files = [str(file) for file in by_key.values()]
    lost = connection.sql(_LOST, params=[files, str(rows), restored_to]).to_arrow_table()
    touched = set(lost["file"].unique().to_pylist())
    ids_by_key = {
        key: lost.filter(pc.equal(lost["file"], str(file)))[c.INTERACTION_ID].combine_chunks()
        for key, file in by_key.items()
        if str(file) in touched
    }
    return lake.remove_interactions(ids_by_key)


def _empty(work: Path) -> Path:
    file = work / "empty.parquet"
    write_parquet(file, [], LAKE_INTERACTIONS)
    return file
