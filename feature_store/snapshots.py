"""Feature snapshots: the lake as models train on it, by position, under a name made from its content.

<features>/tenant=<t>/<snapshot id>/{interactions.parquet, items.parquet, manifest.json}
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from configs.files import locked, publish_folder, remove_unfinished, unfinished_folder, write_text
from feature_store import columns as c
from feature_store.interaction_types import EVENT_WEIGHT_SQL, TYPE_CODE_SQL
from feature_store.lake import TenantLake, tenant_folder, write_parquet
from feature_store.schemas import SNAPSHOT_INTERACTIONS, SNAPSHOT_ITEMS

POSITIONS = pa.schema([SNAPSHOT_ITEMS.field(c.ITEM), SNAPSHOT_ITEMS.field(c.ITEM_ID)])
"""Every item that ever was in a snapshot of the tenant, by position."""

POSITIONS_ID = b"positions_id"

BATCH_ROWS = 122_880
"""Rows held in Arrow at a time: the row group of DuckDB."""

# New items are appended by id, so that in a first snapshot ties in a score, cut by position, are cut by id.
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

# The order is total over the columns that are written, so that equal content is written in equal order.
_INTERACTIONS = f"""
WITH accepted AS (
    SELECT * FROM read_parquet(?)
    QUALIFY row_number() OVER (PARTITION BY {c.INTERACTION_ID} ORDER BY {c.INGESTED_AT}) = 1
),
known AS (
    SELECT accepted.*, positions.{c.ITEM}
    FROM accepted JOIN positions USING ({c.ITEM_ID}) SEMI JOIN read_parquet(?) AS catalogue USING ({c.ITEM_ID})
)
SELECT
    (dense_rank() OVER (ORDER BY {c.USER_ID}) - 1)::INTEGER AS "{c.USER}",
    {c.ITEM},
    ({TYPE_CODE_SQL})::TINYINT AS {c.TYPE},
    {EVENT_WEIGHT_SQL}::REAL AS {c.WEIGHT},
    epoch_us({c.TIMESTAMP}) AS {c.TIMESTAMP}
FROM known
ORDER BY "{c.USER}", {c.TIMESTAMP}, {c.ITEM}, {c.TYPE}, {c.WEIGHT}
"""  # noqa: S608


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds. Times are RFC 3339 in UTC; None where there is no event."""

    snapshot_id: str
    tenant_id: str
    positions_id: str  # equal ids: one item table is a prefix of the other
    catalogue_version: int
    n_users: int
    n_items: int
    n_interactions: int
    first_timestamp: str | None
    last_timestamp: str | None
    created_at: str  # when it was last built


def snapshot_folder(features: Path, tenant_id: str, snapshot_id: str) -> Path:
    return tenant_folder(features, tenant_id) / snapshot_id


def read_manifest(folder: Path) -> Manifest:
    return Manifest(**json.loads((folder / "manifest.json").read_text()))


def prune_snapshots(features: Path, tenant_id: str, keep: int) -> list[str]:
    """Delete all but the tenant's `keep` snapshots built last. Returns the ids that went."""
    manifests = [read_manifest(path.parent) for path in tenant_folder(features, tenant_id).glob("*/manifest.json")]
    newest_first = sorted(manifests, key=lambda manifest: manifest.created_at, reverse=True)
    dropped = [manifest.snapshot_id for manifest in newest_first[keep:]]
    for snapshot_id in dropped:
        shutil.rmtree(snapshot_folder(features, tenant_id, snapshot_id))
    return dropped


def build_snapshot(lake: Path, features: Path, tenant_id: str) -> Manifest:
    """Write the snapshot of everything the tenant's lake holds, and return its manifest.

    Interactions are kept once by id and where their item is in the catalogue. The same lake gives the same
    snapshot, of which then only the date is new. Raises FileNotFoundError where the lake has no catalogue.
    """
    tenant = TenantLake(lake, tenant_id)
    version, items_file = tenant.items_file()
    files = tenant.interaction_files()
    if not files:
        raise FileNotFoundError(f"no interactions of tenant {tenant_id} in {tenant.folder}: export them first")
    parent = tenant_folder(features, tenant_id)
    with locked(parent), _work_folder(parent) as work, _database(work) as database:
        positions_id = _place(database, parent / "positions.parquet", items_file)
        items, interactions = _Digest(), _Digest()
        built = work / "snapshot"
        rows = items.of(_batches(database.sql(_ITEMS, params=[str(items_file)])), SNAPSHOT_ITEMS)
        n_items = write_parquet(built / "items.parquet", rows, SNAPSHOT_ITEMS)
        events = database.sql(_INTERACTIONS, params=[[str(file) for file in files], str(items_file)])
        rows = interactions.of(_batches(events), SNAPSHOT_INTERACTIONS)
        n_interactions = write_parquet(built / "interactions.parquet", rows, SNAPSHOT_INTERACTIONS)
        n_users, first, last = _summary(database, built / "interactions.parquet")
        content = f"{version} {items.hexdigest()} {interactions.hexdigest()}"
        manifest = Manifest(
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
        )
        _write_manifest(built, manifest)
        folder = parent / manifest.snapshot_id
        if folder.exists():
            manifest = replace(read_manifest(folder), created_at=manifest.created_at)
            _write_manifest(folder, manifest)
            return manifest
        publish_folder(built, folder)
        return manifest


def _place(database: duckdb.DuckDBPyConnection, positions_file: Path, items_file: Path) -> str:
    """Give every item of the catalogue that has none a position, and make the table `positions` of all.

    Returns the id of this order of items, made with the first snapshot and kept.
    """
    if positions_file.exists():
        schema = pq.read_schema(positions_file)
    else:
        schema = POSITIONS.with_metadata({POSITIONS_ID: uuid4().hex})
        write_parquet(positions_file, [], schema)
    database.execute(
        f"CREATE TABLE positions AS SELECT {c.ITEM}, {c.ITEM_ID} FROM read_parquet(?)",  # noqa: S608
        [str(positions_file)],
    )
    database.execute(_NEW_POSITIONS, [str(items_file)])
    rows = database.sql(f"SELECT {c.ITEM}, {c.ITEM_ID} FROM positions ORDER BY {c.ITEM}")  # noqa: S608
    write_parquet(positions_file, _batches(rows), schema)
    return schema.metadata[POSITIONS_ID].decode()


@contextmanager
def _database(work: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"temp_directory": str(work / "spill")}) as database:
        database.execute("SET TimeZone = 'UTC'")
        yield database


def _batches(relation: duckdb.DuckDBPyRelation) -> Iterator[pa.RecordBatch]:
    reader: pa.RecordBatchReader = relation.to_arrow_reader(BATCH_ROWS)
    yield from reader


def _summary(database: duckdb.DuckDBPyConnection, interactions: Path) -> tuple[int, str | None, str | None]:
    summary = database.execute(
        f'SELECT coalesce(max("{c.USER}") + 1, 0), min({c.TIMESTAMP}), max({c.TIMESTAMP}) FROM read_parquet(?)',  # noqa: S608
        [str(interactions)],
    ).fetchone()
    if summary is None:
        raise LookupError(f"no summary of {interactions}")
    n_users, first, last = summary
    return n_users, _rfc3339(first), _rfc3339(last)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_text(folder / "manifest.json", json.dumps(asdict(manifest), indent=1))


def _rfc3339(micros: int | None) -> str | None:
    return None if micros is None else datetime.fromtimestamp(micros / 1e6, tz=UTC).isoformat()


@contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, with whatever was not moved out of it. What a killed process left goes too.

    Call it with the parent's lock held.
    """
    remove_unfinished(parent)
    folder = unfinished_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class _Digest:
    """SHA-256 over the values that stream through, column by column, whatever the batches they come in."""

    def __init__(self) -> None:
        self._columns: dict[str, hashlib._Hash] = {}

    def of(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
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
        return " ".join(f"{name}:{digest.hexdigest()}" for name, digest in sorted(self._columns.items()))


_HASHED_AS = {pa.bool_(): pa.int8()}
