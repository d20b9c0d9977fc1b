"""A tenant's newest events and its catalogue as tables of DuckDB, for counts that need the ids of users."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from feature_store import columns as c
from feature_store.interaction_types import EVENT_WEIGHT_SQL
from feature_store.lake import TenantLake
from feature_store.query_database import query_database

LOOKBACK_DAYS = 365
"""Days that are read, up to the tenant's newest event."""

_CATALOGUE = f"""
CREATE TABLE catalogue AS
SELECT (row_number() OVER (ORDER BY {c.ITEM_ID}) - 1)::INTEGER AS {c.ITEM}, {c.ITEM_ID}, {c.METADATA}, {c.IS_ACTIVE}
FROM read_parquet(?)
"""  # noqa: S608 - constants of this code base

# An interaction counts once per id, as in a feature snapshot.
_EVENTS = f"""
CREATE TABLE events AS
WITH recent AS (
    SELECT * FROM read_parquet($files)
    WHERE {c.TIMESTAMP} > (SELECT max({c.TIMESTAMP}) FROM read_parquet($files)) - INTERVAL {LOOKBACK_DAYS} DAY
    QUALIFY row_number() OVER (PARTITION BY {c.INTERACTION_ID} ORDER BY {c.INGESTED_AT}) = 1
)
SELECT {c.USER_ID}, {c.ITEM}, {c.INTERACTION_TYPE}, {EVENT_WEIGHT_SQL}::DOUBLE AS {c.WEIGHT}, {c.TIMESTAMP},
    {c.INGESTED_AT}
FROM recent JOIN catalogue USING ({c.ITEM_ID})
"""  # noqa: S608 - constants of this code base

_NO_EVENTS = f"""
CREATE TABLE events (
    {c.USER_ID} VARCHAR, {c.ITEM} INTEGER, {c.INTERACTION_TYPE} VARCHAR, {c.WEIGHT} DOUBLE,
    {c.TIMESTAMP} TIMESTAMPTZ, {c.INGESTED_AT} TIMESTAMPTZ
)
"""


class LakeEvents:
    """Two tables, and queries over them.

    `events` has `user_id, item, interaction_type, weight, timestamp, ingested_at` of the last `LOOKBACK_DAYS`,
    `catalogue` has `item, item_id, metadata, is_active`; `item` numbers the items of this catalogue by their ids.
    Events with items that were deleted are left out.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database

    def run(self, statement: str, parameters: Any = None) -> None:
        """Run a statement without a result, such as one that makes a temporary table."""
        self._database.execute(statement, parameters)

    def table(self, query: str, parameters: Any = None) -> pa.Table:
        """The result of a query."""
        return self._database.sql(query, params=parameters).to_arrow_table()

    def value(self, query: str, parameters: Any = None) -> Any:
        """The first column of the only row of a query."""
        return self.table(query, parameters).column(0)[0].as_py()

    @contextmanager
    def with_items(self, name: str, items: Sequence[int] | pa.Array) -> Iterator[None]:
        """Inside the block, a table `name` with the column `item` holds these items of the catalogue."""
        self._database.register(name, pa.table({c.ITEM: pa.array(items, pa.int32())}))
        try:
            yield
        finally:
            self._database.unregister(name)


@contextmanager
def open_lake_events(lake: TenantLake) -> Iterator[LakeEvents]:
    """Read a tenant's lake. Without interactions, `events` is empty. Raises FileNotFoundError without a catalogue.

    What does not fit into memory is spilled beside the lake's files: see `query_database`.
    """
    _, items_file = lake.items_file()
    files = [str(file) for file in lake.interaction_files()]
    with query_database(lake.folder) as database:
        database.execute(_CATALOGUE, [str(items_file)])
        if files:
            database.execute(_EVENTS, {"files": files})
        else:
            database.execute(_NO_EVENTS)
        yield LakeEvents(database)
