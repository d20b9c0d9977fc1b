"""The lake: the database's interactions and items as Parquet files, by tenant and day of ingestion.

    <lake>/tenant=<t>/cursor.json
    <lake>/tenant=<t>/interactions/ingested_day=YYYY-MM-DD/<generation>-<lower>-<upper>.parquet
    <lake>/tenant=<t>/items/<catalogue version>.parquet

A file of interactions covers the transaction ids `lower <= xid < upper` of one PostgreSQL cluster. Files are written
once and rewritten only to delete rows. Readers see the files below the cursor, which an export moves after its files
are in place. The next export removes files above the cursor, which a crash has left.

Transaction ids mean nothing in another cluster. There a new generation of files begins
(`feature_store.reconciliation`), whose ids are not compared with those of earlier ones. Files of the first generation
have no number of it in their name.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain, groupby, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.files import atomic_file
from configs.storage import Storage, open_storage
from feature_store import columns as c
from feature_store.erasure import holds_erased, without_erased
from feature_store.schemas import LAKE_INTERACTIONS, LAKE_ITEMS

TENANT_ID = re.compile(r"[a-z][a-z0-9-]{1,31}")
KEPT_CATALOGUES = 10
"""Catalogue versions that stay in the lake. Each has a file of all items, also where one item changed."""

_CURSOR = "cursor.json"
_COVERS = re.compile(
    r"interactions/ingested_day=(?P<day>[^/]+)/(?:(?P<generation>\d+)-)?(?P<lower>\d+)-(?P<upper>\d+)\.parquet"
)
_CATALOGUE = re.compile(r"items/(?P<version>\d+)\.parquet")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def tenant_folder(root: Path, tenant_id: str) -> Path:
    """The folder of one tenant below `root`. Raises ValueError for a text that is no tenant id."""
    if not TENANT_ID.fullmatch(tenant_id):
        raise ValueError(f"not a tenant id: {tenant_id!r}")
    return root / f"tenant={tenant_id}"


@dataclass(frozen=True)
class Cursor:
    """How far a tenant's exports have come."""

    next_xid: int = 0  # lower bound of the next export; every committed row below it is in the lake
    rows: int = 0  # interactions in the lake
    exported_at: str | None = None  # RFC 3339, UTC; None before the first export
    cluster: str | None = None  # whose transaction ids these are; None: an export before clusters were recorded
    generation: int = 0  # one more for each cluster

    def covers(self, key: str) -> bool:
        """Whether a file of interactions, by its key below the tenant's, is of a finished export."""
        match = _COVERS.fullmatch(key)
        if match is None:
            return False
        written = int(match["generation"] or 0)
        return written < self.generation or (written == self.generation and int(match["upper"]) <= self.next_xid)


@dataclass(frozen=True)
class TenantLake:
    """The files of one tenant."""

    root: Path
    tenant_id: str

    @property
    def folder(self) -> Path:
        """The tenant's folder in the lake."""
        return tenant_folder(self.root, self.tenant_id)

    @property
    def storage(self) -> Storage:
        """The tenant's files by key."""
        return open_storage(self.folder)

    def cursor(self) -> Cursor:
        """How far the exports have come; the start where there was none."""
        storage = self.storage
        return Cursor(**json.loads(storage.read_text(_CURSOR))) if storage.exists(_CURSOR) else Cursor()

    def interaction_files(self) -> list[Path]:
        """Parquet files (schema LAKE_INTERACTIONS) of finished exports, oldest day first."""
        return list(self.interactions_by_key().values())

    def interactions_by_key(self) -> dict[str, Path]:
        """The same files by their keys in `storage`."""
        cursor, storage = self.cursor(), self.storage
        keys = [key for key in storage.files("interactions") if cursor.covers(key)]
        # One call for all files, because an object store answers each call with a request.
        folder = storage.local("interactions").parent
        return {key: folder / key for key in keys}

    def rows_in_files(self) -> int:
        """Interactions in the files; fewer than the cursor says where a file is gone."""
        return sum(pq.read_metadata(file).num_rows for file in self.interaction_files())

    def items_file(self) -> tuple[int, Path]:
        """The newest catalogue version in the lake and its file (LAKE_ITEMS). Raises FileNotFoundError without one."""
        versions = self._catalogue_versions()
        if not versions:
            raise FileNotFoundError(f"no catalogue of tenant {self.tenant_id} in {self.folder}: export it first")
        return versions[-1], self.storage.local(_catalogue_key(versions[-1]))

    def catalogue_file(self, version: int) -> Path | None:
        """The file of this catalogue version (LAKE_ITEMS); None where the lake no longer keeps it."""
        storage, key = self.storage, _catalogue_key(version)
        return storage.local(key) if storage.exists(key) else None

    @contextmanager
    def exporting(self) -> Iterator[None]:
        """Hold the tenant's export lock, waiting for it, and remove the files of an export that was interrupted."""
        storage = self.storage
        with storage.lock():
            cursor = self.cursor()
            for key in storage.files("interactions"):
                if _COVERS.fullmatch(key) and not cursor.covers(key):
                    storage.delete(key)
            storage.remove_unfinished()
            yield

    def append_interactions(self, batches: Iterable[pa.RecordBatch], upper_xid: int, cluster: str | None = None) -> int:
        """Write the rows of `cursor <= xid < upper_xid` and move the cursor. Returns the number of rows.

        Call it within `exporting`.

        Args:
            batches: schema LAKE_INTERACTIONS, ordered by `ingested_at`, so that one day's file is open at a time.
            cluster: whose transaction ids these are.
        """
        cursor = self.cursor()
        return self._append(batches, replace(cursor, next_xid=upper_xid, cluster=cluster), cursor.next_xid)

    def begin_generation(self, batches: Iterable[pa.RecordBatch], upper_xid: int, cluster: str) -> int:
        """Write the rows that the lake lacks of another cluster, and move the cursor there. Returns their number.

        Call it within `exporting`, once the files hold nothing that this cluster does not.

        Args:
            batches: as in `append_interactions`.
        """
        cursor = self.cursor()
        begun = Cursor(upper_xid, self.rows_in_files(), cluster=cluster, generation=cursor.generation + 1)
        return self._append(batches, begun, 0)

    def remove_interactions(self, ids_by_key: Mapping[str, pa.Array]) -> int:
        """Rewrite files without the rows of these interactions. Returns the number of rows.

        Call it within `exporting`. Where it is interrupted, call it again.

        Args:
            ids_by_key: ids of interactions by the key of their file.
        """
        removed = 0
        for key, ids in ids_by_key.items():
            with pq.ParquetFile(self.storage.local(key)) as parquet:
                before = parquet.metadata.num_rows
                kept = (
                    batch.filter(pc.invert(pc.is_in(batch.column(c.INTERACTION_ID), value_set=ids)))
                    for batch in parquet.iter_batches()
                )
                removed += before - put_parquet(self.storage, key, kept, LAKE_INTERACTIONS)
        return removed

    def add_missing(self, batches: Iterable[pa.RecordBatch], unreadable: Set[str]) -> dict[date, int]:
        """Write rows below the cursor that finished exports have lost. Returns their number by day of ingestion.

        They go to a file of each day, which covers all transactions below the cursor. Call it within `exporting`. Where
        it is interrupted, call it again with what is then missing.

        Args:
            batches: schema LAKE_INTERACTIONS, ordered by `ingested_at`, none of them in the lake.
            unreadable: keys of files that are deleted, or replaced.
        """
        cursor, storage, added = self.cursor(), self.storage, {}
        replaced: set[str] = set()
        for day, day_batches in _by_day(batches):
            key = _interactions_key(day, cursor, 0)
            rows: Iterable[pa.RecordBatch] = day_batches
            n_before = 0
            with ExitStack() as opened:
                if key in unreadable:
                    replaced.add(key)
                elif storage.exists(key):
                    before = opened.enter_context(pq.ParquetFile(storage.local(key)))
                    n_before = before.metadata.num_rows
                    rows = chain(before.iter_batches(), day_batches)
                added[date.fromisoformat(day)] = put_parquet(storage, key, rows, LAKE_INTERACTIONS) - n_before
        for key in unreadable - replaced:
            storage.delete(key)
        if (rows_now := self.rows_in_files()) > cursor.rows:
            self._move_cursor(replace(cursor, rows=rows_now))
        return added

    def erase(self, tombstones: pa.Table) -> int:
        """Rewrite the files that hold rows of erased users, without these rows. Returns the number of rewritten files.

        Call it within `exporting`. Where it is interrupted, call it again with the same tombstones: it counts the
        remaining rows again.

        Args:
            tombstones: TOMBSTONES.
        """
        touched = {key: file for key, file in self.interactions_by_key().items() if holds_erased(file, tombstones)}
        for key, file in touched.items():
            with pq.ParquetFile(file) as parquet:
                kept = without_erased(parquet.iter_batches(), tombstones)
                put_parquet(self.storage, key, kept, LAKE_INTERACTIONS)
        self._move_cursor(replace(self.cursor(), rows=self.rows_in_files()))
        return len(touched)

    def write_items(self, batches: Iterable[pa.RecordBatch], catalogue_version: int) -> int:
        """Write the catalogue at its present version (LAKE_ITEMS). Returns the number of items.

        Deletes old versions, and newer ones, which only a database that was restored to an older moment leaves behind.
        """
        items = put_parquet(self.storage, _catalogue_key(catalogue_version), batches, LAKE_ITEMS)
        versions = self._catalogue_versions()
        kept = [version for version in versions if version <= catalogue_version][-KEPT_CATALOGUES:]
        for version in set(versions) - set(kept):
            self.storage.delete(_catalogue_key(version))
        return items

    def _append(self, batches: Iterable[pa.RecordBatch], moved: Cursor, lower_xid: int) -> int:
        """Write rows under the cursor that is then moved. Returns the number of rows."""
        rows = 0
        for day, day_batches in _by_day(batches):
            key = _interactions_key(day, moved, lower_xid)
            rows += put_parquet(self.storage, key, day_batches, LAKE_INTERACTIONS)
        self._move_cursor(replace(moved, rows=moved.rows + rows, exported_at=datetime.now(UTC).isoformat()))
        return rows

    def _move_cursor(self, cursor: Cursor) -> None:
        self.storage.put_text(_CURSOR, json.dumps(asdict(cursor)))

    def _catalogue_versions(self) -> list[int]:
        found = (_CATALOGUE.fullmatch(key) for key in self.storage.files("items"))
        return sorted(int(match["version"]) for match in found if match)


def put_parquet(storage: Storage, key: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Put batches as one Parquet file. Returns the number of rows. Raises as `write_parquet` does."""
    with storage.put(key) as file:
        return _write(file, batches, schema)


def write_parquet(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Stream batches into one Parquet file, which appears whole or not at all. Returns the number of rows.

    Raises pa.ArrowInvalid where a batch does not fit the schema, as with a null in a required column.
    """
    with atomic_file(path) as file:
        return _write(file, batches, schema)


def day_of_key(key: str) -> date:
    """The day of ingestion (UTC) of a file of interactions, by its key."""
    match = _COVERS.fullmatch(key)
    if match is None:
        raise ValueError(f"no file of interactions: {key}")
    return date.fromisoformat(match["day"])


def _interactions_key(day: str, cursor: Cursor, lower_xid: int) -> str:
    """The key of a day's file that covers `lower_xid <= xid < cursor.next_xid`. day: YYYY-MM-DD."""
    generation = f"{cursor.generation}-" if cursor.generation else ""
    return f"interactions/ingested_day={day}/{generation}{lower_xid}-{cursor.next_xid}.parquet"


def _catalogue_key(version: int) -> str:
    return f"items/{version}.parquet"


def _write(file: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            table = pa.Table.from_batches([batch]).cast(schema)
            table.validate()
            writer.write_table(table)
            rows += table.num_rows
    return rows


def _by_day(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
    """Group batches ordered by `ingested_at` into pairs of YYYY-MM-DD and its batches.

    It is lazy: exhaust each group before taking the next one.
    """
    for day, pieces in groupby(_split_at_midnight(batches), key=itemgetter(0)):
        yield (_EPOCH + timedelta(days=day)).date().isoformat(), (batch for _, batch in pieces)


def _split_at_midnight(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in batches:
        if batch.num_rows == 0:
            continue
        micros = batch.column(c.INGESTED_AT).cast(pa.int64()).to_numpy(zero_copy_only=False)
        days = micros // c.MICROS_PER_DAY
        starts = [0, *(np.flatnonzero(np.diff(days)) + 1), len(days)]
        for start, end in pairwise(starts):
            yield int(days[start]), batch.slice(start, end - start)
