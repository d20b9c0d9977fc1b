"""Queries for the events of a snapshot, over the whole lake or over the rows of one range of users.

They use these tables and views: `lake`, its rows; `positions`, the items with their positions; `divided`, rows of the
lake with items as positions (DIVIDED_ROWS); `accepted`, each interaction of `divided` once; `users`, numbered from 0.
"""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from feature_store import columns as c
from feature_store.interaction_types import EVENT_WEIGHT_SQL, TYPE_CODE_SQL
from feature_store.lake import write_parquet
from feature_store.schemas import LAKE_INTERACTIONS

ROWS_PER_RECORD_BATCH = 122_880
"""Rows held in Arrow at a time: the size of a DuckDB row group."""

LAKE_COLUMNS = [name for name in LAKE_INTERACTIONS.names if name != c.RECOMMENDATION_ID]
"""Columns of the lake that a snapshot is made from."""

PLACE, RANGE, ID_HASH = "place", "range", "id_hash"
"""Columns of work files: an item's place in the order of ids, a range's number, the hash of an interaction's id."""

_CATALOGUE = pa.schema([(c.ITEM_ID, pa.string()), (c.ITEM, pa.int32()), (PLACE, pa.int32())])
DIVIDED_ROWS = pa.schema(
    [
        (c.USER_ID, pa.string()),
        (c.ITEM, pa.int32()),
        (PLACE, pa.int32()),
        (c.TYPE, pa.int8()),
        (c.WEIGHT, pa.float32()),
        (c.TIMESTAMP, pa.int64()),
        (c.INTERACTION_ID, pa.string()),
        (c.INGESTED_AT, pa.int64()),
        (RANGE, pa.int32()),
    ]
)
"""Rows of the lake as ranges read them. The item is null where the catalogue does not have it."""

COPIES = pa.schema(
    [(c.INTERACTION_ID, pa.string()), (c.USER_ID, pa.string()), (c.INGESTED_AT, pa.int64()), (RANGE, pa.int32())]
)
"""Interactions whose ids may be in several ranges: for each range and id the row that arrived first."""

REFUSED_COPIES = pa.schema([(c.INTERACTION_ID, pa.string()), (RANGE, pa.int32())])
"""Ids of interactions, each with a range whose rows of it are left out, since another range has the first one."""

# Of the copies of an interaction, the one that arrived first counts. No two different rows are equal in this order.
_FIRST = f"{c.INGESTED_AT}, {c.USER_ID}, {c.TIMESTAMP}, {PLACE} NULLS LAST, {c.TYPE}, {c.WEIGHT}"

_CATALOGUE_ITEMS = f"""
SELECT {c.ITEM_ID}, {c.ITEM}, row_number() OVER (ORDER BY {c.ITEM_ID}) AS {PLACE}
FROM positions SEMI JOIN read_parquet(?) AS catalogue USING ({c.ITEM_ID})
"""  # noqa: S608 - constants of this code base, here and below

_REPEATED = f"""
CREATE TEMP TABLE repeated AS
SELECT hash({c.INTERACTION_ID}) AS {ID_HASH} FROM divided GROUP BY ALL HAVING count(*) > 1
"""  # noqa: S608

# Different ids may have the same hash, so rows with a repeated hash are compared by id.
_ACCEPTED = f"""
CREATE TEMP VIEW accepted AS
SELECT * FROM divided ANTI JOIN repeated ON {ID_HASH} = hash({c.INTERACTION_ID})
UNION ALL
SELECT * FROM divided SEMI JOIN repeated ON {ID_HASH} = hash({c.INTERACTION_ID})
QUALIFY row_number() OVER (PARTITION BY {c.INTERACTION_ID} ORDER BY {_FIRST}) = 1
"""  # noqa: S608

# Users are numbered in the order of their ids.
_USERS = f"""
CREATE TEMP TABLE users AS
SELECT {c.USER_ID}, (row_number() OVER (ORDER BY {c.USER_ID}) - 1)::INTEGER AS "{c.USER}"
FROM (SELECT DISTINCT {c.USER_ID} FROM accepted WHERE {c.ITEM} IS NOT NULL)
"""  # noqa: S608

# The order is that of requests (`feature_store.online`), and total, so that the same lake gives the same file and hash.
RANGE_EVENTS = f"""
SELECT "{c.USER}", {c.ITEM}, {c.TYPE}, {c.WEIGHT}, {c.TIMESTAMP}
FROM accepted JOIN users USING ({c.USER_ID}) WHERE {c.ITEM} IS NOT NULL
ORDER BY "{c.USER}", {c.TIMESTAMP}, {PLACE}, {c.INTERACTION_ID}
"""  # noqa: S608

FIRST_COPIES = f"""
SELECT {c.INTERACTION_ID}, {c.USER_ID}, {c.INGESTED_AT}, {RANGE}
FROM divided SEMI JOIN crossing ON {ID_HASH} = hash({c.INTERACTION_ID})
QUALIFY row_number() OVER (PARTITION BY {c.INTERACTION_ID} ORDER BY {_FIRST}) = 1
"""  # noqa: S608

# Each range has users of its own, so the first two columns of `_FIRST` decide between ranges.
LATER_COPIES = f"""
SELECT {c.INTERACTION_ID}, {RANGE} FROM copies
QUALIFY row_number() OVER (PARTITION BY {c.INTERACTION_ID} ORDER BY {c.INGESTED_AT}, {c.USER_ID}) > 1
"""  # noqa: S608


def write_catalogue(work: Path, database: duckdb.DuckDBPyConnection, items_file: Path) -> None:
    """Write the items of the catalogue, with their positions and their places in the order of ids, for all tasks.

    database: has the table `positions` of all items.
    """
    items = database.sql(_CATALOGUE_ITEMS, params=[str(items_file)])
    write_parquet(_catalogue(work), items.to_arrow_reader(ROWS_PER_RECORD_BATCH), _CATALOGUE)


def divided_rows(work: Path) -> str:
    """SQL: the rows of the view `lake` as `DIVIDED_ROWS`, without their range."""
    return f"""
SELECT {c.USER_ID}, {c.ITEM}, {PLACE}, ({TYPE_CODE_SQL})::TINYINT AS {c.TYPE}, {EVENT_WEIGHT_SQL}::REAL AS {c.WEIGHT},
    epoch_us({c.TIMESTAMP}) AS {c.TIMESTAMP}, {c.INTERACTION_ID}, epoch_us({c.INGESTED_AT}) AS {c.INGESTED_AT}
FROM lake LEFT JOIN read_parquet({sql_text(str(_catalogue(work)))}) AS catalogue USING ({c.ITEM_ID})
"""  # noqa: S608


def drop_copies(database: duckdb.DuckDBPyConnection) -> int:
    """Make the view `accepted`, which has each interaction of `divided` once, and the table `users`.

    Returns the number of users.
    """
    database.execute(_REPEATED)
    if _one(database, "SELECT count(*) FROM repeated"):
        database.execute(_ACCEPTED)
    else:
        database.execute("CREATE TEMP VIEW accepted AS SELECT * FROM divided")
    database.execute(_USERS)
    return int(_one(database, "SELECT count(*) FROM users"))


def _one(database: duckdb.DuckDBPyConnection, query: str) -> Any:
    ((value,),) = database.sql(query).fetchall()
    return value


def sql_text(value: str) -> str:
    """SQL: the text as a literal. A backslash has no meaning in it."""
    return "'" + value.replace("'", "''") + "'"


def _catalogue(work: Path) -> Path:
    return work / "catalogue.parquet"
