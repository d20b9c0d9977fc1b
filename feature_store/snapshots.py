"""Feature snapshots: what models train on. A snapshot is the lake with ids replaced by positions; its id is a hash of
its content.

`feature_store.snapshot_files` describes its files. Events of a large tenant are built in ranges of users
(`feature_store.snapshot_ranges`); the id does not depend on them.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from configs.storage import Storage, open_storage
from feature_store import columns as c
from feature_store.lake import TenantLake, put_parquet, tenant_folder, write_parquet
from feature_store.query_database import query_database
from feature_store.range_plan import DEFAULT_LIMITS, RangeLimits
from feature_store.range_queries import ROWS_PER_RECORD_BATCH, write_catalogue
from feature_store.schemas import SNAPSHOT_INTERACTIONS, SNAPSHOT_ITEMS
from feature_store.snapshot_files import ONLY_PART, SNAPSHOT_ITEMS_FILE, SNAPSHOT_MANIFEST_FILE, SnapshotManifest
from feature_store.snapshot_ranges import BuiltRange, MapTasks, build_ranges, one_by_one, renumbered, whole_range

POSITIONS = pa.schema([SNAPSHOT_ITEMS.field(c.ITEM), SNAPSHOT_ITEMS.field(c.ITEM_ID)])
"""Every item that was ever in a snapshot of the tenant, with its position."""

POSITIONS_ID = b"positions_id"

_POSITIONS_FILE = "positions.parquet"

# New items are appended in the order of ids: ranking breaks ties of scores by position, and so by id.
_NEW_POSITIONS = f"""
INSERT INTO positions
SELECT (SELECT count(*) FROM positions) + row_number() OVER (ORDER BY {c.ITEM_ID}) - 1, {c.ITEM_ID}
FROM read_parquet(?) ANTI JOIN positions USING ({c.ITEM_ID})
"""  # noqa: S608

_ITEMS = f"""
SELECT
    {c.ITEM},
    {c.ITEM_ID},
    coalesce({c.METADATA}, '{{}}') AS {c.METADATA},
    coalesce({c.IS_ACTIVE}, false) AS {c.IS_ACTIVE}
FROM positions LEFT JOIN read_parquet(?) USING ({c.ITEM_ID})
ORDER BY {c.ITEM}
"""  # noqa: S608


def prune_snapshots(features: Path, tenant_id: str, keep: int) -> list[str]:
    """Delete all but the tenant's `keep` newest snapshots. Returns the ids of the deleted ones.

    What an interrupted deletion left of earlier ones is deleted too. Waits for a snapshot that is being built: it may
    hold what an erased user did, and an erasure must find it.
    """
    storage = open_storage(tenant_folder(features, tenant_id))
    with storage.lock():
        storage.finish_deletions()
        storage.remove_unfinished()  # a killed build left rows with ids of users
        manifests = [
            _read_manifest(storage, name)
            for name in storage.folders()
            if storage.exists(f"{name}/{SNAPSHOT_MANIFEST_FILE}")
        ]
        newest_first = sorted(manifests, key=lambda manifest: manifest.created_at, reverse=True)
        dropped = [manifest.snapshot_id for manifest in newest_first[keep:]]
        for snapshot_id in dropped:
            storage.delete(snapshot_id)
    return dropped


def build_snapshot(
    lake: Path, features: Path, tenant_id: str, limits: RangeLimits = DEFAULT_LIMITS, run: MapTasks = one_by_one
) -> SnapshotManifest:
    """Write a snapshot of the tenant's whole lake, and return its manifest.

    An interaction is kept once per id, and only where its item is in the catalogue. The same lake gives the same
    snapshot id, whatever the limits; a snapshot that exists only gets a new `created_at`.

    Args:
        limits: the size of the ranges of users, and the memory of a task.
        run: runs the tasks that build the ranges.

    Raises FileNotFoundError where the lake has no catalogue or no interactions.
    """
    tenant = TenantLake(lake, tenant_id)
    version, items_file = tenant.items_file()
    files = tenant.interaction_files()
    if not files:
        raise FileNotFoundError(f"no interactions of tenant {tenant_id} in {tenant.folder}: export them first")
    storage = open_storage(tenant_folder(features, tenant_id))
    with storage.lock(), storage.work_folder() as work, query_database(work, limits.memory_bytes) as database:
        positions_id = _assign_positions(database, storage, items_file)
        items, interactions = _ColumnHashes(), _ColumnHashes()
        rows = items.of(_batches(database.sql(_ITEMS, params=[str(items_file)])), SNAPSHOT_ITEMS)
        n_items = write_parquet(work / SNAPSHOT_ITEMS_FILE, rows, SNAPSHOT_ITEMS)
        write_catalogue(work, database, items_file)
        if tenant.cursor().rows <= limits.events:
            rows = interactions.of(whole_range(work, files, limits.memory_bytes), SNAPSHOT_INTERACTIONS)
            write_parquet(work / ONLY_PART, rows, SNAPSHOT_INTERACTIONS)
            parts = [ONLY_PART]
        else:
            parts = _write_parts(work, build_ranges(work, files, limits, run), interactions)
        n_users, n_interactions, first, last = _summary(database, [work / name for name in parts])
        content = f"{version} {items.hexdigest()} {interactions.hexdigest()}"
        manifest = SnapshotManifest(
            snapshot_id=hashlib.sha256(content.encode()).hexdigest()[:16],
            tenant_id=tenant_id,
            positions_id=positions_id,
            catalogue_version=version,
            n_users=n_users,
            n_items=n_items,
            n_interactions=n_interactions,
            first_timestamp=first,
            last_timestamp=last,
            created_at=datetime.now(UTC).isoformat(),
            parts=tuple(parts),
        )
        if storage.exists(f"{manifest.snapshot_id}/{SNAPSHOT_MANIFEST_FILE}"):
            manifest = replace(_read_manifest(storage, manifest.snapshot_id), created_at=manifest.created_at)
            storage.put_text(f"{manifest.snapshot_id}/{SNAPSHOT_MANIFEST_FILE}", _as_text(manifest))
            return manifest
        with storage.put_folder(manifest.snapshot_id) as folder:
            for name in (SNAPSHOT_ITEMS_FILE, *parts):
                shutil.move(work / name, folder / name)
            (folder / SNAPSHOT_MANIFEST_FILE).write_text(_as_text(manifest))
        return manifest


def _assign_positions(database: duckdb.DuckDBPyConnection, storage: Storage, items_file: Path) -> str:
    """Give new items of the catalogue a position, and create the table `positions` of all items.

    Returns the id of this order of items, which is made with the tenant's first snapshot and kept.
    """
    if storage.exists(_POSITIONS_FILE):
        schema = pq.read_schema(storage.local(_POSITIONS_FILE))
    else:
        schema = POSITIONS.with_metadata({POSITIONS_ID: uuid4().hex})
        put_parquet(storage, _POSITIONS_FILE, [], schema)
    database.execute(
        f"CREATE TABLE positions AS SELECT {c.ITEM}, {c.ITEM_ID} FROM read_parquet(?)",  # noqa: S608
        [str(storage.local(_POSITIONS_FILE))],
    )
    database.execute(_NEW_POSITIONS, [str(items_file)])
    rows = database.sql(f"SELECT {c.ITEM}, {c.ITEM_ID} FROM positions ORDER BY {c.ITEM}")  # noqa: S608
    put_parquet(storage, _POSITIONS_FILE, _batches(rows), schema)
    return schema.metadata[POSITIONS_ID].decode()


def _batches(relation: duckdb.DuckDBPyRelation) -> Iterator[pa.RecordBatch]:
    reader: pa.RecordBatchReader = relation.to_arrow_reader(ROWS_PER_RECORD_BATCH)
    yield from reader


def _write_parts(work: Path, ranges: Iterable[BuiltRange], hashes: "_ColumnHashes") -> list[str]:
    """Write the events of all ranges, whose users are numbered on from range to range. Returns the files' names."""
    parts: list[str] = []
    name, n_users = "", 0
    for built in ranges:
        name = f"interactions-{len(parts):05}.parquet"
        rows = hashes.of(renumbered(built, n_users), SNAPSHOT_INTERACTIONS)
        n_rows = write_parquet(work / name, rows, SNAPSHOT_INTERACTIONS)
        built.file.unlink()
        n_users += built.users
        if n_rows:
            parts.append(name)
    return parts or [name]  # an empty one, so that readers have a file with the columns


def _summary(database: duckdb.DuckDBPyConnection, parts: list[Path]) -> tuple[int, int, str | None, str | None]:
    """Users, events, and the first and last time of the events in these files."""
    summary = database.execute(
        f'SELECT coalesce(max("{c.USER}") + 1, 0), count(*), min({c.TIMESTAMP}), max({c.TIMESTAMP}) '  # noqa: S608
        "FROM read_parquet(?)",
        [[str(part) for part in parts]],
    ).fetchone()
    if summary is None:
        raise LookupError(f"no summary of {parts}")
    n_users, n_events, first, last = summary
    return n_users, n_events, _rfc3339(first), _rfc3339(last)


def _read_manifest(storage: Storage, snapshot_id: str) -> SnapshotManifest:
    return SnapshotManifest.of(json.loads(storage.read_text(f"{snapshot_id}/{SNAPSHOT_MANIFEST_FILE}")))


def _as_text(manifest: SnapshotManifest) -> str:
    return json.dumps(asdict(manifest), indent=1)


def _rfc3339(micros: int | None) -> str | None:
    return None if micros is None else datetime.fromtimestamp(micros / 1e6, tz=UTC).isoformat()


class _ColumnHashes:
    """SHA-256 of each column of a stream, independent of how the stream is cut into batches."""

    def __init__(self) -> None:
        self._columns: dict[str, hashlib._Hash] = {}

    def of(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The same batches, unchanged; each is hashed, cast to the schema, as it passes."""
        for batch in batches:
            for name, column in zip(schema.names, pa.Table.from_batches([batch]).cast(schema).columns, strict=True):
                digest = self._columns.setdefault(name, hashlib.sha256())
                if pa.types.is_string(column.type):
                    for text in column.to_pylist():
                        encoded = text.encode()
                        digest.update(len(encoded).to_bytes(8, "little") + encoded)
                else:
                    digest.update(column.cast(_HASHED_AS.get(column.type, column.type)).to_numpy().tobytes())
            yield batch

    def hexdigest(self) -> str:
        """The hashes of all columns as one text, by column name."""
        return " ".join(f"{name}:{digest.hexdigest()}" for name, digest in sorted(self._columns.items()))


_HASHED_AS = {pa.bool_(): pa.int8()}
