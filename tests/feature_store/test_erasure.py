"""Files forget erased users, up to the moment of the erasure and not beyond it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import columns as c
from feature_store.erasure import erase_rejects
from feature_store.exports import export_interactions
from feature_store.lake import TenantLake
from feature_store.schemas import LAKE_INTERACTIONS, TOMBSTONES
from feature_store.snapshots import build_snapshot
from feature_store.sources import oldest_erasure
from tests.feature_store.lakes import write_lake
from tests.feature_store.rows import add_interactions, add_tenant

TENANT = "acme"


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_tenant(connection, TENANT)
        yield connection


def erase(connection: psycopg.Connection[Any], *users: str, tenant: str = TENANT) -> None:
    """What the API does to these tables when a user is deleted."""
    for user in users:
        connection.execute("DELETE FROM interactions WHERE tenant_id = %s AND user_id = %s", (tenant, user))
        connection.execute(
            "INSERT INTO tombstones AS known (tenant_id, user_id, erased_at) VALUES (%s, %s, clock_timestamp()) "
            "ON CONFLICT (tenant_id, user_id) DO UPDATE SET erased_at = excluded.erased_at, xid = excluded.xid",
            (tenant, user),
        )


def lake_rows(lake: Path) -> list[tuple[str, str]]:
    """(user id, item id) of every visible row, sorted."""
    rows = []
    for file in TenantLake(lake, TENANT).interaction_files():
        table = pq.ParquetFile(file).read()
        assert table.schema.equals(LAKE_INTERACTIONS)
        rows += zip(table[c.USER_ID].to_pylist(), table[c.ITEM_ID].to_pylist(), strict=True)
    return sorted(rows)


def holding(folder: Path, word: str) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and word.encode() in file.read_bytes()]


def test_the_next_export_takes_an_erased_user_out_of_every_file(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    for day in (1, 2):
        arrived = datetime(2024, 5, day, tzinfo=UTC)
        add_interactions(connection, TENANT, [("ann-77", "i1"), ("ben", "i1"), ("ann-77", "i2")], arrived=arrived)
        export_interactions(database_url, tmp_path, TENANT)
    erase(connection, "ann-77")
    add_interactions(connection, TENANT, [("cy", "i3")])
    exported = export_interactions(database_url, tmp_path, TENANT)
    assert (exported.new_rows, exported.total_rows, exported.erased_users) == (1, 3, 1)
    assert lake_rows(tmp_path) == [("ben", "i1"), ("ben", "i1"), ("cy", "i3")]
    assert holding(tmp_path, "ann-77") == []


def test_a_tombstone_is_applied_once(database_url: str, connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    add_interactions(connection, TENANT, [("ann", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    erase(connection, "ann")
    assert export_interactions(database_url, tmp_path, TENANT).erased_users == 1
    assert export_interactions(database_url, tmp_path, TENANT).erased_users == 0


def test_an_id_that_is_used_again_begins_anew(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_interactions(connection, TENANT, [("ann", "old")])
    export_interactions(database_url, tmp_path, TENANT)
    erase(connection, "ann")
    # What it did long ago may be sent once more: what counts is when it came.
    add_interactions(connection, TENANT, [("ann", "new")], at=datetime(2020, 1, 1, tzinfo=UTC))
    export_interactions(database_url, tmp_path, TENANT)
    assert lake_rows(tmp_path) == [("ann", "new")]
    erase(connection, "ben")  # somebody else's tombstone does not apply the first one again
    export_interactions(database_url, tmp_path, TENANT)
    assert lake_rows(tmp_path) == [("ann", "new")]
    erase(connection, "ann")
    export_interactions(database_url, tmp_path, TENANT)
    assert lake_rows(tmp_path) == []


def test_a_row_that_came_before_the_erasure_and_was_committed_after_it_is_not_exported(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    with psycopg.connect(database_url) as slow:
        add_interactions(slow, TENANT, [("ann", "late")])
        erase(connection, "ann")
        export_interactions(database_url, tmp_path, TENANT)
        slow.commit()
    export_interactions(database_url, tmp_path, TENANT)
    assert lake_rows(tmp_path) == []


def test_an_erasure_waits_for_no_open_transaction(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_interactions(connection, TENANT, [("ann", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    with psycopg.connect(database_url) as slow:
        add_interactions(slow, TENANT, [("ben", "i1")])  # holds back the bound of exports
        erase(connection, "ann")
        export_interactions(database_url, tmp_path, TENANT)
        assert lake_rows(tmp_path) == []


def test_another_tenants_erasure_touches_nothing(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_tenant(connection, "other")
    add_interactions(connection, TENANT, [("ann", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    erase(connection, "ann", tenant="other")
    assert export_interactions(database_url, tmp_path, TENANT).erased_users == 0
    assert lake_rows(tmp_path) == [("ann", "i1")]


def test_an_export_that_is_cut_off_leaves_the_erasure_to_the_next(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_interactions(connection, TENANT, [("ann", "i1"), ("ben", "i1")])
    export_interactions(database_url, tmp_path, TENANT)
    erase(connection, "ann")
    told = []

    def elsewhere(tombstones: pa.Table) -> None:
        told.append(tombstones[c.USER_ID].to_pylist())
        if len(told) == 1:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        export_interactions(database_url, tmp_path, TENANT, elsewhere)
    assert oldest_erasure(database_url, TENANT, TenantLake(tmp_path, TENANT).cursor().next_xid) is not None
    exported = export_interactions(database_url, tmp_path, TENANT, elsewhere)
    assert told == [["ann"], ["ann"]]
    assert (exported.total_rows, lake_rows(tmp_path)) == (1, [("ben", "i1")])
    assert oldest_erasure(database_url, TENANT, TenantLake(tmp_path, TENANT).cursor().next_xid) is None


def test_the_longest_waiting_erasure_counts(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    assert oldest_erasure(database_url, TENANT, 0) is None
    erase(connection, "ann", "ben")
    connection.execute("UPDATE tombstones SET erased_at = '2024-05-01 12:00Z' WHERE user_id = 'ben'")
    assert oldest_erasure(database_url, TENANT, 0) == datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_features_are_built_without_the_user(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_interactions(connection, TENANT, [("ann", "i1"), ("ben", "i1"), ("ben", "i2")])
    export_interactions(database_url, tmp_path / "lake", TENANT)
    write_lake(tmp_path / "lake", items={"i1": "{}", "i2": "{}"})
    before = build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
    left_behind = tmp_path / "features" / f"tenant={TENANT}" / ".tmp-killed"
    left_behind.mkdir()
    erase(connection, "ann")
    export_interactions(database_url, tmp_path / "lake", TENANT)
    after = build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
    assert (before.n_users, before.n_interactions, after.n_users, after.n_interactions) == (2, 3, 1, 2)
    assert not left_behind.exists()


@pytest.mark.parametrize(
    ("row", "goes"),
    [
        ({"row": '{"userId":"u-7","itemId":"x"}'}, True),
        ({"row": '{"user":"someone","tags":["u-7"]}'}, True),
        ({"row": '{"userId":"u-77","itemId":"x"}'}, False),
        ({"row": '{"userId":7}'}, False),
        ({"row": 'no json: u-7;"x'}, True),
        ({"row": "no json: menu-7;x"}, False),
        ({"reason": "there is no user u-7"}, True),
        ({"row": '{"userId":12345}'}, True),
        ({"row": '{"userId":123456}'}, False),
        ({"row": '{"userId":"d\\u00f6rte \\"x\\""}'}, True),
        ({"row": "", "place": 3}, False),
    ],
)
def test_a_rejected_row_goes_where_it_names_the_user(row: dict[str, Any], goes: bool, tmp_path: Path) -> None:
    kept = {"file": "f.csv", "word": "line", "place": 1, "column": "", "reason": "bad", "row": '{"userId":"other"}'}
    file = tmp_path / "acme-20240501T120000000000.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in (kept, {**kept, **row})))
    moment = datetime(2024, 5, 1, 12, tzinfo=UTC) + timedelta(seconds=1)
    users = ("u-7", "12345", 'dörte "x"')
    tombstones = pa.table({c.USER_ID: users, c.ERASED_AT: [moment] * 3}, schema=TOMBSTONES)
    assert erase_rejects(tmp_path, "acme", tombstones) == int(goes)
    assert len(file.read_text().splitlines()) == 2 - goes
    assert {path.name for path in tmp_path.iterdir()} == {file.name, ".lock"}


def test_rejected_rows_that_a_killed_import_left_go_with_the_next_erasure(tmp_path: Path) -> None:
    left = tmp_path / ".tmp-acme-20240501T120000000000.jsonl-0123456789ab"
    left.write_text('{"row": "u-7"}')
    staged = tmp_path / ".scratch-0123456789abcdef" / "import.duckdb"
    staged.parent.mkdir()
    staged.write_text("u-7")
    tombstones = pa.table({c.USER_ID: ["u-7"], c.ERASED_AT: [datetime(2024, 5, 1, 13, tzinfo=UTC)]}, schema=TOMBSTONES)
    assert erase_rejects(tmp_path, "acme", tombstones) == 0
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_rejects_of_another_tenant_or_of_a_later_import_stay(tmp_path: Path) -> None:
    line = json.dumps({"row": '{"userId":"u-7"}'}) + "\n"
    names = ("acme-20240501T120000000000", "acme-20240501T140000000000", "acme-b-20240501T120000000000")
    for name in names:
        (tmp_path / f"{name}.jsonl").write_text(line)
    moment = datetime(2024, 5, 1, 13, tzinfo=UTC)
    tombstones = pa.table({c.USER_ID: ["u-7"], c.ERASED_AT: [moment]}, schema=TOMBSTONES)
    assert erase_rejects(tmp_path, "acme", tombstones) == 1
    assert [(tmp_path / f"{name}.jsonl").read_text() for name in names] == ["", line, line]
