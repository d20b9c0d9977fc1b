"""Days of a lake that are brought in line with the database again, where files of it are gone or cannot be read.

Exports move on and never look back, so a file that a disk or a person lost stays lost. A backfill compares the days of
ingestion from one on: rows that the database has below the lake's cursor, and the lake has not, are written. Rows that
the lake alone has stay, since the database may have kept them for a limited time. Nothing is written where nothing is
missing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import columns as c
from feature_store.lake import TenantLake, day_of_key, write_parquet
from feature_store.query_database import query_database
from feature_store.schemas import LAKE_INTERACTIONS
from feature_store.sources import ROWS_PER_FETCH, adopt_cluster, read_ingested_since

_MISSING = f"""
SELECT stored.* FROM read_parquet(?, hive_partitioning = false) AS stored
ANTI JOIN read_parquet(?, hive_partitioning = false) USING ({c.INTERACTION_ID})
ORDER BY {c.INGESTED_AT}, {c.INTERACTION_ID}
"""  # noqa: S608 - constants of this code base


@dataclass(frozen=True)
class Backfilled:
    """What a backfill found of the days of ingestion from one on, and wrote."""

    since: date
    compared: int  # interactions of the database
    added: Mapping[date, int]  # those that the lake lacked, by day of ingestion (UTC), without days that lack none
    unreadable: int  # files that were replaced
    still_missing: int = 0  # interactions that were exported once, and are in no file of any day

    @property
    def rows(self) -> int:
        """How many interactions were added."""
        return sum(self.added.values())


def backfill_interactions(url: str, lake: TenantLake, since: date) -> Backfilled:
    """Write the interactions that arrived from a day (UTC) on, were exported before, and are missing now.

    A file that cannot be read is replaced by what the database has of it. Where a backfill is interrupted, the next one
    goes on. Call it before an export, since an erasure reads all files. A lake that follows another database is left to
    that export, which compares all of its rows.
    """
    cluster = adopt_cluster(url)
    with lake.exporting():
        cursor = lake.cursor()
        if cursor.exported_at is None or cursor.cluster not in {None, cluster}:
            return Backfilled(since, 0, {}, 0)
        present = {key: file for key, file in lake.interactions_by_key().items() if day_of_key(key) >= since}
        unreadable = {key for key, file in present.items() if not _is_readable(file)}
        readable = [file for key, file in present.items() if key not in unreadable]
        with lake.storage.work_folder() as work:
            stored = work / "database.parquet"
            with read_ingested_since(url, lake.tenant_id, since, cursor.next_xid) as batches:
                compared = write_parquet(stored, batches, LAKE_INTERACTIONS)
            with _missing(work, stored, readable) as missing:
                added = lake.add_missing(missing, unreadable)
        return Backfilled(since, compared, added, len(unreadable), lake.cursor().rows - lake.rows_in_files())


@contextmanager
def _missing(work: Path, stored: Path, files: list[Path]) -> Iterator[Iterator[pa.RecordBatch]]:
    """Rows of the file `stored` that none of the files has, by time of ingestion."""
    if not files:  # DuckDB reads no empty list of files
        files = [work / "empty.parquet"]
        write_parquet(files[0], [], LAKE_INTERACTIONS)
    with query_database(work) as database:
        rows = database.sql(_MISSING, params=[str(stored), [str(file) for file in files]])
        yield iter(rows.to_arrow_reader(ROWS_PER_FETCH))


def _is_readable(file: Path) -> bool:
    """Whether all values of a file of interactions can be read."""
    try:
        with pq.ParquetFile(file) as parquet:
            for _ in parquet.iter_batches():
                pass
    except (OSError, pa.ArrowException):
        return False
    return True
