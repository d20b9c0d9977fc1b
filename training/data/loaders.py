"""Loaders: a data set from CSV, TSV or Parquet files, checked before anything is fitted on it.

Every error is one line that names the file, the row and the remedy.
"""

import math
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from feature_store import columns as c
from training.data.dataset import Dataset, from_events

TEXT_FORMATS = {".csv": ",", ".tsv": "\t"}
PARQUET_FORMATS = (".parquet", ".pq")
_UNITS = ((1e17, "nanoseconds", 1e-3), (1e14, "microseconds", 1), (1e11, "milliseconds", 1e3), (1e8, "seconds", 1e6))
"""(least value, unit, microseconds per unit). A number from the least value on is a time since 1970 in this unit."""
_LARGEST = 8e18
"""The largest time in microseconds that is accepted; int64 ends at 9.2e18."""


@dataclass(frozen=True)
class LoadedDataset:
    """A data set from files, with remarks on how the files were read."""

    dataset: Dataset
    has_dates: bool  # whether timestamps are dates; otherwise they are positions, which only give an order
    remarks: tuple[str, ...]


def load_dataset_files(interactions: Path, items: Path | None, max_events: int = 200) -> LoadedDataset:
    """The data set of two files.

    Args:
        interactions: user_id, item_id, timestamp (date-time, or a number: seconds to nanoseconds since 1970, or a
            position) and, where known, interaction_type and value (0 to 1). Rows may repeat.
        items: item_id, and metadata in any other columns; a column `metadata` holds objects, or JSON text of them.
        max_events: bound on every history.

    Raises:
        ValueError: a file is no table, lacks a column, or has an invalid value in a row.
        OSError: a file cannot be read.
    """
    table = _read(interactions, (c.USER_ID, c.ITEM_ID))
    remarks: list[str] = []
    micros, unit = _timestamps(table, interactions)
    if unit is None:
        remarks.append(f"{interactions}: timestamps are no dates but positions, which only give an order")
    elif unit:
        remarks.append(f"{interactions}: timestamps are read as {unit} since 1970")
    events = pd.DataFrame(
        {
            c.USER_ID: _ids(table, c.USER_ID, interactions),
            c.ITEM_ID: _ids(table, c.ITEM_ID, interactions),
            c.TIMESTAMP: micros,
        }
    )
    if c.INTERACTION_TYPE in table.column_names:
        events[c.INTERACTION_TYPE] = _types(table, interactions)
    if c.VALUE in table.column_names:
        events[c.VALUE] = _values(table, interactions)
    catalogue = None
    if items is not None:
        catalogue = _catalogue(items)
        unlisted = sorted(set(events[c.ITEM_ID]) - set(catalogue[c.ITEM_ID]))
        if unlisted:
            remarks.append(f"{items}: lacks {len(unlisted)} items that have interactions; they have no metadata")
            rows = pd.DataFrame({c.ITEM_ID: unlisted, c.METADATA: [{} for _ in unlisted]})
            catalogue = pd.concat([catalogue, rows], ignore_index=True)
    dataset = from_events(events, catalogue, max_events, snapshot_id=interactions.name)
    return LoadedDataset(dataset, unit is not None, tuple(remarks))


def _read(path: Path, ids: tuple[str, ...]) -> pa.Table:
    """The file as a table with at least one row and these columns, read as text from CSV: 007 and 7 are two ids."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    suffix = path.suffix.lower()
    if suffix not in TEXT_FORMATS and suffix not in PARQUET_FORMATS:
        raise ValueError(
            f"{path}: has an unknown extension; known ones are {', '.join((*TEXT_FORMATS, *PARQUET_FORMATS))}"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: is empty")
    try:
        if suffix in PARQUET_FORMATS:
            table = pq.read_table(path)
        else:
            table = csv.read_csv(
                path,
                parse_options=csv.ParseOptions(delimiter=TEXT_FORMATS[suffix], newlines_in_values=True),
                convert_options=csv.ConvertOptions(column_types=dict.fromkeys(ids, pa.string())),
            )
    except pa.ArrowException as error:
        raise ValueError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    names = table.column_names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: has several columns {', '.join(repeated)}")
    if missing := [name for name in ids if name not in names]:
        raise ValueError(f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(names)}")
    if not table.num_rows:
        raise ValueError(f"{path}: has no rows")
    return table


def _ids(table: pa.Table, name: str, path: Path) -> "pd.Series[Any]":
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    if not any(kind(column.type) for kind in kinds):
        raise ValueError(f"{path}: {name} is of type {column.type}; ids are text or whole numbers")
    found = column.cast(pa.large_string()).to_pandas().astype(object)
    _refuse(found.isna() | (found == ""), path, f"{name} is missing")
    return found


def _timestamps(table: pa.Table, path: Path) -> tuple[npt.NDArray[np.int64], str | None]:
    """Microseconds [n], and the unit that numbers were read in: "" for date-times, None for positions."""
    if c.TIMESTAMP not in table.column_names:
        raise ValueError(f"{path}: lacks the column {c.TIMESTAMP}; it has {', '.join(table.column_names)}")
    column = table[c.TIMESTAMP]
    times = column.to_pandas()
    _refuse(times.isna(), path, f"{c.TIMESTAMP} is missing")
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        return _numbers(times.to_numpy(dtype=np.float64), times, path)
    if pa.types.is_boolean(column.type) or pa.types.is_nested(column.type) or pa.types.is_time(column.type):
        raise ValueError(f"{path}: {c.TIMESTAMP} is of type {column.type}; it must be a date-time or a number")
    numbers = pd.to_numeric(times, errors="coerce") if pd.api.types.is_string_dtype(times) else None
    if numbers is not None and numbers.notna().all():
        return _numbers(numbers.to_numpy(dtype=np.float64), numbers, path)
    try:
        times_read = pd.to_datetime(times, utc=True, format="ISO8601", errors="coerce")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {c.TIMESTAMP} cannot be read: {error}") from error
    if numbers is not None:  # pandas reads "now" and "today" as the current time, which changes with every read
        times_read = times_read.where(times.str.match(r"\s*[+-]?\d"))
    _refuse(times_read.isna(), path, f"{c.TIMESTAMP} is neither an ISO 8601 date-time nor a number", times)
    return times_read.dt.as_unit("us").astype("int64").to_numpy(), ""


def _numbers(
    values: npt.NDArray[np.float64], exact: "pd.Series[Any]", path: Path
) -> tuple[npt.NDArray[np.int64], str | None]:
    _refuse(pd.Series(~np.isfinite(values)), path, f"{c.TIMESTAMP} is no finite number", exact)
    largest = float(np.abs(values).max())
    for least, unit, factor in _UNITS:
        if largest >= least:
            _refuse(pd.Series(np.abs(values) * factor > _LARGEST), path, f"{c.TIMESTAMP} is past all dates", exact)
            whole = pd.api.types.is_integer_dtype(exact)
            if whole and factor >= 1:
                return exact.to_numpy(dtype=np.int64) * int(factor), unit
            return (exact.to_numpy(dtype=np.int64) // 1_000 if whole else values * factor).astype(np.int64), unit
    # Positions with fractions are scaled, so that the conversion to whole numbers keeps their order.
    whole_positions = np.equal(np.mod(values, 1), 0).all()
    return (values if whole_positions else values * 1e6).astype(np.int64), None


def _types(table: pa.Table, path: Path) -> "pd.Series[Any]":
    found = table[c.INTERACTION_TYPE].to_pandas().astype(object)
    found = found.where(found.notna() & (found != ""), "click")
    known = f"{c.INTERACTION_TYPE} is none of {', '.join(c.INTERACTION_TYPES)}"
    _refuse(~found.isin(c.INTERACTION_TYPES), path, known, found)
    return found


def _values(table: pa.Table, path: Path) -> "pd.Series[Any]":
    column = table[c.VALUE]
    if pa.types.is_null(column.type):
        return pd.Series(np.full(len(column), np.nan))
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise ValueError(f"{path}: {c.VALUE} is of type {column.type}; it must be a number from 0 to 1")
    found = column.cast(pa.float64()).to_pandas()
    _refuse(found.notna() & ~found.between(0, 1), path, f"{c.VALUE} is not from 0 to 1 (divide it by its scale)", found)
    return found


def _catalogue(path: Path) -> pd.DataFrame:
    table = _read(path, (c.ITEM_ID,))
    ids = _ids(table, c.ITEM_ID, path)
    _refuse(ids.duplicated(), path, f"{c.ITEM_ID} is there twice", ids)
    rows: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    for name in table.column_names:
        if name == c.ITEM_ID:
            continue
        for number, value in enumerate(map(_plain, table[name].to_pylist())):
            if name == c.METADATA and value is not None:
                rows[number].update(_object(value, path, number))
            elif value is not None:
                rows[number][name] = value
    return pd.DataFrame({c.ITEM_ID: ids, c.METADATA: rows})


def _object(value: Any, path: Path, number: int) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}: row {number + 1}: {c.METADATA} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: row {number + 1}: {c.METADATA} is no object")
    found: dict[str, Any] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    """A value as JSON holds it; None where it is missing: null, NaN, infinite or blank."""
    if isinstance(value, dict):
        return {key: each for key, inner in value.items() if (each := _plain(inner)) is not None}
    if isinstance(value, list | tuple):
        return [each for inner in value if (each := _plain(inner)) is not None]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.strip() or None
    return value if isinstance(value, bool | int | float) else None


def _refuse(wrong: "pd.Series[Any]", path: Path, reason: str, values: "pd.Series[Any] | None" = None) -> None:
    """Raise ValueError for the first row under the mask `wrong`. Rows count from 1, without the header."""
    places = np.flatnonzero(wrong.to_numpy(dtype=bool))
    if len(places):
        shown = "" if values is None else f": {str(values.iloc[places[0]])[:80]!r}"
        more = f" (and in {len(places) - 1} more rows)" if len(places) > 1 else ""
        raise ValueError(f"{path}: row {places[0] + 1}: {reason}{shown}{more}")
