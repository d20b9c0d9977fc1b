"""What a tenant's users did on each day, as counts: what drift is measured on. Holds no user and no single event."""

from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from feature_store import columns as c
from feature_store.interaction_types import TYPE_CODE_SQL
from feature_store.lake import TenantLake
from feature_store.query_database import query_database

HISTORY_DAYS = 210
"""Days up to the newest one that are counted: what limits are learned from, and some of them to show."""
SILENT_DAYS = 7
"""After more days than these without an event a tenant's data count as ended, and their last day is the newest one."""
ACTIVITY_BINS = ("1", "2", "3-4", "5-8", "9-16", "17-32", "over 32")
"""Events of a user in a day, in powers of two."""
MAX_FIELDS = 3
"""Fields of the metadata whose labels are counted: those that most items have."""
MAX_LABELS = 200
"""Distinct labels of a field; one with more is a name rather than a category."""
LEAST_ITEMS_PER_LABEL = 3
"""Items that share a label on average; a field with fewer is a name rather than a category."""


@dataclass(frozen=True, eq=False)
class ItemLabels:
    """The labels of one field of the metadata, such as genres."""

    field: str
    labels: list[str]
    shares: sp.csr_array  # float64 [n_items, n_labels] each row sums to 1, or to 0 where the item has none


@dataclass(frozen=True, eq=False)
class DailyCounts:
    """Counts of every day of the calendar from `first_day` on, without gaps. Days are UTC, by the time of the event."""

    first_day: date
    items: sp.csr_array  # int64 [n_days, n_items] events with each item of the catalogue
    types: npt.NDArray[np.int64]  # [n_days, n_types]
    activity: npt.NDArray[np.int64]  # [n_days, n_bins] users by their events of the day, see ACTIVITY_BINS
    unknown: npt.NDArray[np.int64]  # [n_days] events with items that the catalogue does not have
    item_ids: list[str]  # [n_items]
    labels: tuple[ItemLabels, ...]

    @property
    def events(self) -> npt.NDArray[np.int64]:
        """All events of each day, int64 [n_days]."""
        found: npt.NDArray[np.int64] = self.types.sum(axis=1)
        return found

    @property
    def days(self) -> list[date]:
        """The day of each row."""
        return [self.first_day + timedelta(days=number) for number in range(len(self.types))]


def read_daily_counts(lake: TenantLake, until: date) -> DailyCounts | None:
    """The counts of a tenant's last days, or None where it has no event up to `until`.

    The last row is `until`, or the day of the newest event where that is longer ago than SILENT_DAYS.

    Args:
        until: the last day that is complete in the lake.

    Raises:
        FileNotFoundError: the lake has no catalogue.
    """
    files = [str(file) for file in lake.interaction_files()]
    _, items_file = lake.items_file()
    if not files:
        return None
    with query_database(lake.folder) as database:
        newest = _newest_day(database, files, until)
        if newest is None:
            return None
        last = until if (until - newest).days <= SILENT_DAYS else newest
        first = last - timedelta(days=HISTORY_DAYS - 1)
        database.execute(_EVENTS, {"files": files, "first": first, "last": last})
        database.execute(_ITEMS, {"file": str(items_file)})
        ids = _columns(database, "SELECT item_id FROM items ORDER BY item")["item_id"]
        oldest = first + timedelta(days=int(_columns(database, "SELECT min(day) AS day FROM events")["day"][0].as_py()))
        shape = ((last - oldest).days + 1, len(ids))
        offset = (oldest - first).days
        by_type = _matrix(_columns(database, _BY_TYPE), offset, (shape[0], len(c.INTERACTION_TYPES)))
        activity = _matrix(_columns(database, _ACTIVITY), offset, (shape[0], len(ACTIVITY_BINS)))
        return DailyCounts(
            first_day=oldest,
            items=_matrix(_columns(database, _BY_ITEM), offset, shape),
            types=by_type.toarray(),
            activity=activity.toarray(),
            unknown=_matrix(_columns(database, _UNKNOWN), offset, (shape[0], 1)).toarray()[:, 0],
            item_ids=ids.to_pylist(),
            labels=_labels(database, len(ids)),
        )


def _newest_day(database: duckdb.DuckDBPyConnection, files: list[str], until: date) -> date | None:
    row = database.execute(
        f"SELECT max({c.TIMESTAMP}::DATE) FROM read_parquet($files) WHERE {c.TIMESTAMP}::DATE <= $until",  # noqa: S608
        {"files": files, "until": until},
    ).fetchone()
    newest: date | None = None if row is None else row[0]
    return newest


def _labels(database: duckdb.DuckDBPyConnection, n_items: int) -> tuple[ItemLabels, ...]:
    database.execute(_LABELS)
    fields = _columns(database, _FIELDS)["field"].to_pylist()
    found = []
    for field in fields:
        rows = database.sql(_LABELS_OF_FIELD, params={"field": field}).to_arrow_table()
        encoded = rows["label"].combine_chunks().dictionary_encode()
        items, names = rows["item"].to_numpy(), encoded.dictionary.to_pylist()
        per_item = np.bincount(items, minlength=n_items)
        shares = sp.csr_array(
            (1 / per_item[items], (items, encoded.indices.to_numpy())), shape=(n_items, len(names)), dtype=np.float64
        )
        found.append(ItemLabels(field, names, shares))
    return tuple(found)


def _columns(database: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return database.sql(query).to_arrow_table()


def _matrix(rows: pa.Table, offset: int, shape: tuple[int, int]) -> sp.csr_array:
    """Rows of (day, place, n) as a matrix int64 [days, places], whose first day is `offset`."""
    day, place, n = (rows[name].to_numpy() for name in ("day", "place", "n"))
    return sp.csr_array((n.astype(np.int64), (day - offset, place)), shape=shape, dtype=np.int64)


# An interaction that the lake holds twice counts once, as in a snapshot.
_EVENTS = f"""
CREATE TABLE events AS
SELECT date_diff('day', $first::DATE, {c.TIMESTAMP}::DATE) AS day, {c.USER_ID}, {c.ITEM_ID},
    ({TYPE_CODE_SQL})::INTEGER AS type
FROM read_parquet($files)
WHERE {c.TIMESTAMP}::DATE BETWEEN $first AND $last
QUALIFY row_number() OVER (PARTITION BY {c.INTERACTION_ID} ORDER BY {c.INGESTED_AT}) = 1
"""  # noqa: S608 - constants of this code base

_ITEMS = f"""
CREATE TABLE items AS
SELECT file_row_number::INTEGER AS item, {c.ITEM_ID} AS item_id, {c.METADATA} AS metadata
FROM read_parquet($file, file_row_number = true)
"""  # noqa: S608

_BY_TYPE = "SELECT day, type AS place, count(*) AS n FROM events GROUP BY ALL"

_BY_ITEM = "SELECT day, item AS place, count(*) AS n FROM events JOIN items USING (item_id) GROUP BY ALL"

_UNKNOWN = "SELECT day, 0 AS place, count(*) AS n FROM events ANTI JOIN items USING (item_id) GROUP BY ALL"

_ACTIVITY = f"""
SELECT day, least(ceil(log2(n)), {len(ACTIVITY_BINS) - 1})::INTEGER AS place, count(*) AS n
FROM (SELECT day, user_id, count(*) AS n FROM events GROUP BY ALL) GROUP BY day, place
"""  # noqa: S608

# Texts, lists of texts, and lists that some exports join as `Action|Comedy`, as content models read them.
_LABELS = """
CREATE TABLE labels AS
SELECT DISTINCT item, field, lower(trim(label)) AS label
FROM (
    SELECT item, key AS field, unnest(flatten(list_transform(
        CASE type WHEN 'ARRAY' THEN value->>'$[*]' ELSE [value->>'$'] END, lambda text: string_split(text, '|')
    ))) AS label
    FROM items, json_each(items.metadata) WHERE type IN ('ARRAY', 'VARCHAR')
)
WHERE trim(label) <> ''
"""

_LABELS_OF_FIELD = "SELECT item, label FROM labels WHERE field = $field"

_FIELDS = f"""
SELECT field FROM labels GROUP BY field
HAVING count(DISTINCT label) BETWEEN 2 AND {MAX_LABELS} AND count(*) >= {LEAST_ITEMS_PER_LABEL} * count(DISTINCT label)
ORDER BY count(DISTINCT item) DESC, count(DISTINCT label), field LIMIT {MAX_FIELDS}
"""  # noqa: S608
