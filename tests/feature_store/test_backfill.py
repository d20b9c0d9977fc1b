"""Files that a lake has lost come back from the database, each row once, and nothing else is touched."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store import columns as c
from feature_store.backfill import Backfilled, backfill_interactions
from feature_store.exports import export_interactions
from feature_store.lake import TenantLake
from tests.feature_store.rows import add_interactions
from tests.feature_store.test_exports import TENANT, connection  # noqa: F401 - a fixture

SECOND, THIRD = date(2024, 5, 2), date(2024, 5, 3)


def rows(lake: TenantLake) -> list[tuple[str, str]]:
    """Day of ingestion and user of every visible row, sorted."""
    tables = [pq.read_table(file, partitioning=None) for file in lake.interaction_files()]
    return sorted(
        (str(at.date()), user)
        for table in tables
        for at, user in zip(table[c.INGESTED_AT].to_pylist(), table[c.USER_ID].to_pylist(), strict=True)
    )


def lake_of_one_day(url: str, connection: psycopg.Connection[Any], root: Path) -> TenantLake:  # noqa: F811
    """A lake with an interaction of ann and one of ben, exported to one file."""
    add_interactions(connection, TENANT, [("ann", "i1"), ("ben", "i1")], arrived=datetime(2024, 5, 2, tzinfo=UTC))
    export_interactions(url, root, TENANT)
    return TenantLake(root, TENANT)


def test_lost_and_unreadable_days_come_back_from_the_database_once(
    database_url: str,
    connection: psycopg.Connection[Any],  # noqa: F811
    tmp_path: Path,
) -> None:
    lake = TenantLake(tmp_path, TENANT)
    assert backfill_interactions(database_url, lake, SECOND) == Backfilled(SECOND, 0, {}, 0)
    for users in (["ann", "ben"], ["cy"]):  # two exports, so that a day has two files
        for day in (1, 2, 3):
            arrived = datetime(2024, 5, day, 12, tzinfo=UTC)
            add_interactions(connection, TENANT, [(user, "i1") for user in users], arrived=arrived)
        export_interactions(database_url, tmp_path, TENANT)
    whole, cursor = rows(lake), lake.cursor()
    assert len(whole) == 9
    add_interactions(connection, TENANT, [("later", "i1")], arrived=datetime(2024, 5, 3, 13, tzinfo=UTC))
    assert backfill_interactions(database_url, lake, SECOND) == Backfilled(SECOND, 6, {}, 0)  # the next export has it
    first, _, second, second_too, third, third_too = lake.interaction_files()
    for gone in (first, second, second_too):
        gone.unlink()
    third.write_bytes(third.read_bytes()[:-100])
    third_too.write_bytes(b"PAR1")
    backfilled = backfill_interactions(database_url, lake, SECOND)
    assert backfilled == Backfilled(SECOND, 6, {SECOND: 3, THIRD: 3}, 2, still_missing=2)
    assert rows(lake) == [row for row in whole if row != ("2024-05-01", "ann") and row != ("2024-05-01", "ben")]
    again = backfill_interactions(database_url, lake, date(2024, 5, 1))
    assert again == Backfilled(date(2024, 5, 1), 9, {date(2024, 5, 1): 2}, 0)
    assert (rows(lake), lake.cursor()) == (whole, cursor)
    assert export_interactions(database_url, tmp_path, TENANT).new_rows == 1
    assert len(rows(lake)) == 10


def test_a_file_that_has_a_part_of_its_rows_gets_the_others(
    database_url: str,
    connection: psycopg.Connection[Any],  # noqa: F811
    tmp_path: Path,
) -> None:
    lake = lake_of_one_day(database_url, connection, tmp_path)
    (file,) = lake.interaction_files()
    one = pq.ParquetFile(file).read()
    pq.write_table(one.filter(pc.equal(one[c.USER_ID], "ann")), file)
    assert backfill_interactions(database_url, lake, SECOND).added == {SECOND: 1}
    assert lake.interaction_files() == [file]
    assert rows(lake) == [("2024-05-02", "ann"), ("2024-05-02", "ben")]


def test_rows_that_the_database_has_not_any_more_stay(
    database_url: str,
    connection: psycopg.Connection[Any],  # noqa: F811
    tmp_path: Path,
) -> None:
    lake = lake_of_one_day(database_url, connection, tmp_path)
    connection.execute("DELETE FROM interactions WHERE user_id = 'ann'")
    assert backfill_interactions(database_url, lake, SECOND) == Backfilled(SECOND, 1, {}, 0)
    assert len(rows(lake)) == 2
