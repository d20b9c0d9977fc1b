"""Writes the rows of one of a tenant's tables into a Parquet or CSV file, a part at a time.

The rows are those of one snapshot of the database, in the order of their moments. Columns have the names of the
database's. In CSV a null is an empty cell and an empty text is `""`, times are RFC 3339, lists are JSON, and text that
a spreadsheet would run as a formula gets a leading apostrophe.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from configs.escaping import FORMULA_STARTS
from feature_store.schemas import UTC_MICROS
from feature_store.sources import repeatable_read, stream_rows

FileFormat = Literal["parquet", "csv"]
_TEXT, _REAL = pa.string(), pa.float32()
_RISKY = "^[" + "".join(rf"\x{ord(char):02x}" for char in FORMULA_STARTS) + "]"


class FileTooLargeError(Exception):
    """The rows make a larger file than is allowed."""


@dataclass(frozen=True)
class ExportedTable:
    """A table whose rows can be written into files."""

    columns: Mapping[str, pa.DataType]
    moment: str  # the column that orders the rows, and that a period selects by
    key: str  # columns that tell rows of one moment apart
    batch_rows: int = 50_000  # held in memory at a time
    source: str | None = None  # a view that is read in place of the table, with the same columns and more rows

    def query(self, file_format: FileFormat, *, bounded: bool) -> str:
        """The rows of the tenant `$1`; where it is bounded, those from `$2` on and before `$3`, each unless null."""
        selected = ", ".join(f'{_sql(name, kind, file_format)} AS "{name}"' for name, kind in self.columns.items())
        period = (
            f"AND {self.moment} >= coalesce($2::text::timestamptz, '-infinity') "
            f"AND {self.moment} < coalesce($3::text::timestamptz, 'infinity') "
            if bounded
            else ""
        )
        return (
            f"SELECT {selected} FROM {{table}} WHERE tenant_id = $1 {period}"  # noqa: S608 - constants of this module
            f"ORDER BY {self.moment}, {self.key}"
        )

    def schema(self, file_format: FileFormat) -> pa.Schema:
        """Of the rows that the query gives."""
        return pa.schema([(name, _arrow_type(kind, file_format)) for name, kind in self.columns.items()])


EXPORTED_TABLES: dict[str, ExportedTable] = {
    "interactions": ExportedTable(
        {
            "id": _TEXT,
            "user_id": _TEXT,
            "item_id": _TEXT,
            "interaction_type": _TEXT,
            "value": _REAL,
            "occurred_at": UTC_MICROS,
            "ingested_at": UTC_MICROS,
            "recommendation_id": _TEXT,
        },
        "occurred_at",
        "id",
        source="all_interactions",
    ),
    "impressions": ExportedTable(
        {
            "recommendation_id": _TEXT,
            "user_id": _TEXT,
            "algorithm": _TEXT,
            "release": _TEXT,
            "degraded": _TEXT,
            "item_ids": pa.list_(_TEXT),
            "scores": pa.list_(_REAL),
            "created_at": UTC_MICROS,
            "scenario": _TEXT,
            "scenario_version": pa.int32(),
            "holdout": pa.bool_(),
            "milliseconds": _REAL,
        },
        "created_at",
        "recommendation_id",
        5_000,  # a row has up to 100 items
    ),
    "recommendations": ExportedTable(
        {
            "id": _TEXT,
            "user_id": _TEXT,
            "item_id": _TEXT,
            "rank": pa.int16(),
            "score": pa.float64(),
            "algorithm": _TEXT,
            "reason": _TEXT,
            "release": _TEXT,
            "job_id": _TEXT,
            "recommendation_id": _TEXT,
            "created_at": UTC_MICROS,
        },
        "created_at",
        "id",
    ),
    "seen_impressions": ExportedTable(
        {
            "recommendation_id": _TEXT,
            "item_id": _TEXT,
            "position": pa.int32(),
            "seen_at": UTC_MICROS,
        },
        "seen_at",
        "recommendation_id, item_id",
    ),
}
"""By the name of the table. All columns of a table are exported but the tenant's id and the transaction's."""


def write_table(
    url: str,
    tenant_id: str,
    table: str,
    file_format: FileFormat,
    target: Path,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    max_bytes: int | None = None,
) -> int:
    """Write a tenant's rows of a table into the file, replacing it; returns how many.

    Args:
        since, until: the rows of this moment and later, and before that one; None: no bound.
        max_bytes: the size of the file.

    Raises FileTooLargeError as soon as the file is larger than max_bytes.
    """
    exported, rows = EXPORTED_TABLES[table], 0
    bounded = since is not None or until is not None
    parameters = (tenant_id, *((_text(since), _text(until)) if bounded else ()))
    schema = exported.schema(file_format)
    with repeatable_read(url) as cursor, target.open("wb") as sink:
        query = exported.query(file_format, bounded=bounded).format(table=exported.source or table)
        batches = stream_rows(cursor, query, parameters, schema, exported.batch_rows)
        with _writer(sink, schema, file_format) as writer:
            for batch in batches:
                writer.write_batch(_escaped(batch) if file_format == "csv" else batch)
                rows += batch.num_rows
                if max_bytes is not None and sink.tell() > max_bytes:
                    raise FileTooLargeError(f"the file would be larger than {max_bytes:,} bytes")
    return rows


class _Writer(Protocol):
    def write_batch(self, batch: pa.RecordBatch) -> None: ...


@contextmanager
def _writer(sink: object, schema: pa.Schema, file_format: FileFormat) -> Iterator[_Writer]:
    made = pcsv.CSVWriter(sink, schema) if file_format == "csv" else pq.ParquetWriter(sink, schema)
    with made as writer:
        yield writer


def _sql(name: str, kind: pa.DataType, file_format: FileFormat) -> str:
    """A column as SQL whose values have the type of `_arrow_type`."""
    if file_format == "csv":
        if pa.types.is_list(kind):
            return f"array_to_json({name})::text"
        if pa.types.is_timestamp(kind):
            return f"""to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    return f"{name}::text" if kind == _TEXT else name


def _arrow_type(kind: pa.DataType, file_format: FileFormat) -> pa.DataType:
    as_text = file_format == "csv" and (pa.types.is_list(kind) or pa.types.is_timestamp(kind))
    return _TEXT if as_text else kind


def _escaped(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows whose texts a spreadsheet takes for texts: `configs.escaping.spreadsheet_cell` over columns."""
    columns = [_texts(column) if column.type == _TEXT else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _texts(column: pa.Array) -> pa.Array:
    risky = pc.match_substring_regex(column, _RISKY)
    return pc.if_else(risky, pc.binary_join_element_wise("'", column, ""), column)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
