"""Feature snapshots: the lake as models train on it, by position, under a name made from its content.

<features>/tenant=<t>/<snapshot id>/{interactions.parquet, items.parquet, manifest.json}
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa

from feature_store import columns as c
from feature_store.lake import TenantLake, sync_folder, tenant_folder, write_atomic, write_parquet
from feature_store.online import TYPE_CODES, TYPE_WEIGHTS
from feature_store.schemas import SNAPSHOT_INTERACTIONS, SNAPSHOT_ITEMS

BATCH_ROWS = 122_880
"""Rows held in Arrow at a time: the row group of DuckDB."""

_TYPE_CODE = " ".join(f"WHEN '{name}' THEN {code}" for name, code in TYPE_CODES.items())
_TYPE_WEIGHT = " ".join(f"WHEN '{name}' THEN {weight}" for name, weight in TYPE_WEIGHTS.items())

# Positions follow the item id, so that ties in a score, cut by position, are cut by id.
_ITEMS = f"""
CREATE TABLE items AS
SELECT (row_number() OVER (ORDER BY {c.ITEM_ID}) - 1)::INTEGER AS {c.ITEM}, {c.ITEM_ID}, {c.METADATA}, {c.IS_ACTIVE}
FROM read_parquet(?)
"""  # noqa: S608

# The order is total over the columns that are written, so that equal content is written in equal order.
_INTERACTIONS = f"""
WITH accepted AS (
    SELECT * FROM read_parquet(?)
    QUALIFY row_number() OVER (PARTITION BY {c.INTERACTION_ID} ORDER BY {c.INGESTED_AT}) = 1
),
known AS (SELECT accepted.*, items.{c.ITEM} FROM accepted JOIN items USING ({c.ITEM_ID}))
SELECT
    (dense_rank() OVER (ORDER BY {c.USER_ID}) - 1)::INTEGER AS "{c.USER}",
    {c.ITEM},
    (CASE {c.INTERACTION_TYPE} {_TYPE_CODE} END)::TINYINT AS {c.TYPE},
    coalesce({c.VALUE}, CASE {c.INTERACTION_TYPE} {_TYPE_WEIGHT} END)::REAL AS {c.WEIGHT},
    epoch_us({c.TIMESTAMP}) AS {c.TIMESTAMP}
FROM known
ORDER BY "{c.USER}", {c.TIMESTAMP}, {c.ITEM}, {c.TYPE}, {c.WEIGHT}
"""  # noqa: S608


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds. Times are RFC 3339 in UTC; None where there is no event."""

    snapshot_id: str
    tenant_id: str
    catalogue_version: int
    n_users: int
    n_items: int
    n_interactions: int
    first_timestamp: str | None
    last_timestamp: str | None
    created_at: str


def snapshot_folder(features: Path, tenant_id: str, snapshot_id: str) -> Path:
    return tenant_folder(features, tenant_id) / snapshot_id


def read_manifest(folder: Path) -> Manifest:
    return Manifest(**json.loads((folder / "manifest.json").read_text()))


def build_snapshot(lake: Path, features: Path, tenant_id: str) -> Manifest:
    """Write the snapshot of everything the tenant's lake holds, and return its manifest.

    Interactions are kept once by id and where their item is in the catalogue. The same lake gives the same
    snapshot, which is then found and not written again. Raises FileNotFoundError where the lake has no catalogue.
    """
    tenant = TenantLake(lake, tenant_id)
    version, items_file = tenant.items_file()
    files = tenant.interaction_files()
    if not files:
        raise FileNotFoundError(f"no interactions of tenant {tenant_id} in {tenant.folder}: export them first")
    parent = tenant_folder(features, tenant_id)
    parent.mkdir(parents=True, exist_ok=True)
    with _work_folder(parent) as work, duckdb.connect(config={"temp_directory": str(work / "spill")}) as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute(_ITEMS, [str(items_file)])
        items, interactions = _Digest(), _Digest()
        built = work / "snapshot"
        rows = _batches(database.sql(f"SELECT * FROM items ORDER BY {c.ITEM}"))  # noqa: S608
        n_items = write_parquet(built / "items.parquet", items.of(rows, SNAPSHOT_ITEMS), SNAPSHOT_ITEMS)
        rows = _batches(database.sql(_INTERACTIONS, params=[[str(file) for file in files]]))
        events = interactions.of(rows, SNAPSHOT_INTERACTIONS)
        n_interactions = write_parquet(built / "interactions.parquet", events, SNAPSHOT_INTERACTIONS)
        n_users, first, last = _summary(database, built / "interactions.parquet")
        content = f"{version} {items.hexdigest()} {interactions.hexdigest()}"
        manifest = Manifest(
            snapshot_id=hashlib.sha256(content.encode()).hexdigest()[:16],
            tenant_id=tenant_id,
            catalogue_version=version,
            n_users=n_users,
            n_items=n_items,
            n_interactions=n_interactions,
            first_timestamp=first,
            last_timestamp=last,
            created_at=datetime.now(UTC).isoformat(),
        )
        text = json.dumps(asdict(manifest), indent=1)
        write_atomic(built / "manifest.json", lambda file: file.write(text.encode()))
        folder = parent / manifest.snapshot_id
        if folder.exists():
            return read_manifest(folder)
        built.rename(folder)
        sync_folder(parent)
        return manifest


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


def _rfc3339(micros: int | None) -> str | None:
    return None if micros is None else datetime.fromtimestamp(micros / 1e6, tz=UTC).isoformat()


@contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, with whatever was not moved out of it."""
    folder = parent / f".tmp-{uuid4().hex}"
    folder.mkdir()
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
