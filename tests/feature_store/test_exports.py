"""From a real PostgreSQL to the lake: every committed row once, whoever commits when and whatever crashes."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import columns as c
from feature_store import sources
from feature_store.exports import export_interactions, export_items
from feature_store.lake import Cursor, TenantLake
from feature_store.schemas import LAKE_INTERACTIONS, LAKE_ITEMS
from tests.feature_store.rows import add_interactions, add_items, add_tenant, delete_item

TENANT = "acme"
_FIRST_FIELDS = {"next_xid", "rows", "exported_at"}
"""Of a cursor, before clusters were recorded."""


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_tenant(connection, TENANT)
        yield connection


def exported(lake: Path, tenant: str = TENANT) -> list[str]:
    """User ids of every visible row, sorted."""
    tables = [pq.read_table(file, columns=[c.USER_ID]) for file in TenantLake(lake, tenant).interaction_files()]
    return sorted(user for table in tables for user in table.column(c.USER_ID).to_pylist())


def test_a_row_is_exported_once(database_url: str, connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    add_interactions(connection, TENANT, [("ann", "i1"), ("ben", "i1")])
    assert export_interactions(database_url, tmp_path, TENANT).new_rows == 2
    assert export_interactions(database_url, tmp_path, TENANT).new_rows == 0
    add_interactions(connection, TENANT, [("cy", "i1")])
    third = export_interactions(database_url, tmp_path, TENANT)
    assert (third.new_rows, third.total_rows) == (1, 3)
    assert exported(tmp_path) == ["ann", "ben", "cy"]


def test_rows_of_a_transaction_open_across_two_exports_come_with_the_third(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    with psycopg.connect(database_url) as slow:
        add_interactions(slow, TENANT, [("late", "i1")])  # has its transaction id, and does not commit
        add_interactions(connection, TENANT, [("ann", "i1")])  # a younger transaction that commits at once
        export_interactions(database_url, tmp_path, TENANT)
        add_interactions(connection, TENANT, [("ben", "i1")])
        export_interactions(database_url, tmp_path, TENANT)
        assert "late" not in exported(tmp_path)
        slow.commit()
    export_interactions(database_url, tmp_path, TENANT)
    export_interactions(database_url, tmp_path, TENANT)
    assert exported(tmp_path) == ["ann", "ben", "late"]


def test_rolled_back_rows_never_arrive(database_url: str, connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    with psycopg.connect(database_url) as aborted:
        add_interactions(aborted, TENANT, [("ghost", "i1")])
        aborted.rollback()
    add_interactions(connection, TENANT, [("ann", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    assert exported(tmp_path) == ["ann"]


def test_another_tenants_rows_stay_out(database_url: str, connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    add_tenant(connection, "other")
    add_interactions(connection, "other", [("eve", "i1")])
    add_interactions(connection, TENANT, [("ann", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    assert exported(tmp_path) == ["ann"]
    assert exported(tmp_path, "other") == []


def test_files_lie_by_day_of_arrival_and_have_the_lakes_schema(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    for hour, day in ((23, 1), (0, 2), (12, 2)):
        add_interactions(connection, TENANT, [("ann", "i1")], arrived=datetime(2024, 5, day, hour, 30, tzinfo=UTC))
    add_interactions(connection, TENANT, [("ann", "i1")], value=0.25, arrived=datetime(2024, 5, 2, 23, 59, tzinfo=UTC))
    export_interactions(database_url, tmp_path, TENANT)
    files = TenantLake(tmp_path, TENANT).interaction_files()
    assert [file.parent.name for file in files] == ["ingested_day=2024-05-01", "ingested_day=2024-05-02"]
    assert [pq.read_metadata(file).num_rows for file in files] == [1, 3]
    assert all(pq.read_schema(file).equals(LAKE_INTERACTIONS) for file in files)
    assert pq.ParquetFile(files[1]).read().column(c.VALUE).to_pylist() == [None, None, 0.25]


def test_a_crash_between_files_and_cursor_shows_no_row_twice(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_interactions(connection, TENANT, [("ann", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    cursor = tmp_path / f"tenant={TENANT}" / "cursor.json"
    before = cursor.read_text()
    add_interactions(connection, TENANT, [("ben", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    cursor.write_text(before)  # as if the process had died before it replaced the cursor
    assert exported(tmp_path) == ["ann"]
    add_interactions(connection, TENANT, [("cy", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    assert exported(tmp_path) == ["ann", "ben", "cy"]
    assert TenantLake(tmp_path, TENANT).cursor().rows == 3


def test_an_export_that_fails_half_way_leaves_the_lake_as_it_was(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_interactions(connection, TENANT, [("ann", "i1")], arrived=datetime(2024, 5, 1, tzinfo=UTC))
    add_interactions(connection, TENANT, [("ben", "i1")], arrived=datetime(2024, 5, 2, tzinfo=UTC))
    lake = TenantLake(tmp_path, TENANT)

    def broken(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.slice(0, 1)
            yield batch.slice(1, 1)
            raise ConnectionError("the server went away")

    with (
        pytest.raises(ConnectionError),
        lake.exporting(),
        sources.read_new_interactions(database_url, TENANT, 0) as new,
    ):
        lake.append_interactions(broken(new.batches), new.upper_xid)
    assert lake.cursor() == Cursor()
    assert exported(tmp_path) == []
    assert not list(tmp_path.rglob(".tmp-*"))
    export_interactions(database_url, tmp_path, TENANT)
    assert exported(tmp_path) == ["ann", "ben"]


def test_a_large_export_is_read_in_batches(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "ROWS_PER_FETCH", 10)
    add_interactions(connection, TENANT, [(f"u{n}", "i1") for n in range(25)])
    with sources.read_new_interactions(database_url, TENANT, 0) as new:
        assert [batch.num_rows for batch in new.batches] == [10, 10, 5]


def test_a_cursor_of_the_version_before_goes_on_where_it_was(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_interactions(connection, TENANT, [("ann", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    file = tmp_path / f"tenant={TENANT}" / "cursor.json"
    kept = {name: value for name, value in json.loads(file.read_text()).items() if name in _FIRST_FIELDS}
    file.write_text(json.dumps(kept))
    add_interactions(connection, TENANT, [("ben", "i1")])
    assert export_interactions(database_url, tmp_path, TENANT).new_rows == 1
    assert exported(tmp_path) == ["ann", "ben"]
    cursor = TenantLake(tmp_path, TENANT).cursor()
    assert (cursor.generation, cursor.cluster) == (0, sources.adopt_cluster(database_url))


def test_counting_new_interactions_stops_at_its_bound(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_interactions(connection, TENANT, [(f"u{n}", "i1") for n in range(7)])
    assert sources.unexported(database_url, {TENANT: (0, None)}, 5)[0].interactions == 5
    cursor = export_interactions(database_url, tmp_path, TENANT).upper_xid
    add_interactions(connection, TENANT, [("u8", "i1")])
    assert sources.unexported(database_url, {TENANT: (cursor, None)}, 5)[0].interactions == 1


def test_the_catalogue_is_exported_at_its_version_without_deleted_items(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_items(connection, TENANT, {"b": {"title": "Ä"}, "a": {"n": 1}, "gone": {}})
    delete_item(connection, TENANT, "gone")
    result = export_items(database_url, tmp_path, TENANT)
    version, file = TenantLake(tmp_path, TENANT).items_file()
    table = pq.read_table(file)
    assert (result.catalogue_version, result.items, version) == (2, 2, 2)
    assert table.schema.equals(LAKE_ITEMS)
    assert table.column(c.ITEM_ID).to_pylist() == ["a", "b"]
    assert table.column(c.METADATA).to_pylist() == ['{"n": 1}', '{"title": "Ä"}']


def test_old_versions_of_the_catalogue_go(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    for n in range(12):
        add_items(connection, TENANT, {"a": {"n": n}})
        export_items(database_url, tmp_path, TENANT)
    versions = sorted(int(file.stem) for file in tmp_path.rglob("items/*.parquet"))
    assert versions == list(range(3, 13))  # by number: 9 is older than 10


def test_only_living_tenants_are_listed(database_url: str, connection: psycopg.Connection[Any]) -> None:
    add_tenant(connection, "gone")
    connection.execute("UPDATE tenants SET deleted_at = now() WHERE id = 'gone'")
    assert sources.tenants(database_url) == [TENANT]


@pytest.mark.parametrize("tenant", ["../etc", "Acme", "a", "", "a/b", "a" * 40])
def test_a_text_that_is_no_tenant_id_names_no_folder(tenant: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a tenant id"):
        TenantLake(tmp_path, tenant).cursor()
