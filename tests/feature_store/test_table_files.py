"""Files hold the rows of the database, all of them, and nothing else."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.rows import dict_row

from api.database.tables import all_tables
from api.exports.schemas import ExportFormat, ExportKind
from feature_store import table_files
from feature_store.table_files import EXPORTED_TABLES, FileFormat, FileTooLargeError, write_table
from tests.feature_store.rows import add_items, add_tenant

START = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
NASTY = ["ann", "=1+1", "+1", "-1", "@a", "\tx", "\rx", 'q"u,o;te', "two\nlines", "'a", "ünï 用户", "NULL", "x" * 256]
Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """Two tenants with rows in all tables, whose texts are what breaks files."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for tenant in ("acme", "other"):
            add_tenant(connection, tenant)
            add_items(connection, tenant, {"a": {}})
            for place, text in enumerate(NASTY):
                _fill(connection, tenant, text, START + timedelta(hours=place // 2), place)
        yield connection


def _fill(connection: Connection, tenant: str, text: str, at: datetime, place: int) -> None:
    connection.execute("INSERT INTO users (tenant_id, id) VALUES (%s, %s)", [tenant, text])
    value, named = (0.1, uuid4()) if place % 2 else (None, None)
    answer = uuid4()
    connection.execute(
        "INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, value, occurred_at, "
        "recommendation_id) VALUES (%s, %s, %s, %s, 'view', %s, %s, %s)",
        [tenant, uuid4(), text, text, value, at, named],
    )
    connection.execute(
        "INSERT INTO impressions (tenant_id, recommendation_id, user_id, algorithm, release, degraded, item_ids, "
        "scores, created_at, scenario, scenario_version, holdout, milliseconds) "
        "VALUES (%s, %s, %s, 'hybrid', %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            *(tenant, answer, text, "" if place % 2 else None, text, [text, "a"][: place % 3]),
            *([0.3, 1.0][: place % 3], at, text if place % 2 else None, place if place % 2 else None),
            *(place % 2 == 0, value),
        ],
    )
    connection.execute(
        "INSERT INTO seen_impressions (tenant_id, recommendation_id, item_id, position, seen_at) "
        "VALUES (%s, %s, %s, %s, %s)",
        [tenant, answer, text, place + 1, at],
    )
    connection.execute(
        "INSERT INTO recommendations (tenant_id, user_id, item_id, rank, score, algorithm, reason, created_at, job_id) "
        "VALUES (%s, %s, %s, %s, 0.1, 'hybrid', %s, %s, %s)",
        [tenant, text, text, place, text, at, named],
    )


def stored(connection: Connection, table: str, condition: str = "true") -> list[dict[str, Any]]:
    """The rows of acme in the order of a file, as psycopg reads them; ids as text."""
    exported = EXPORTED_TABLES[table]
    cursor = connection.cursor(row_factory=dict_row).execute(
        f"SELECT * FROM {table} WHERE tenant_id = 'acme' AND {condition} ORDER BY {exported.moment}, {exported.key}"
    )
    return [
        {name: str(value) if type(value).__name__ == "UUID" else value for name, value in row.items()}
        for row in cursor.fetchall()
    ]


def without_keys(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ("tenant_id", "xid")} for row in rows]


def as_cell(value: Any) -> Any:
    """What a cell holds of a value: lists decoded, and the apostrophe that makes a text of a formula."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, list):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else str(value)


@pytest.mark.parametrize("table", EXPORTED_TABLES)
def test_a_file_holds_every_row_of_the_tenant_as_the_database_does(
    database_url: str, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setitem(EXPORTED_TABLES, table, replace(EXPORTED_TABLES[table], batch_rows=3))  # several batches
    expected = without_keys(stored(connection, table))
    assert len(expected) == len(NASTY)
    assert write_table(database_url, "acme", table, "parquet", tmp_path / "p") == len(expected)
    rows = pq.read_table(tmp_path / "p").to_pylist()
    assert [{name: _near(value) for name, value in row.items()} for row in rows] == [
        {name: _near(value) for name, value in row.items()} for row in expected
    ]
    assert write_table(database_url, "acme", table, "csv", tmp_path / "c") == len(expected)
    with (tmp_path / "c").open(encoding="utf-8", newline="") as file:
        cells: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in cells:
        for name in ("item_ids", "scores"):
            if name in row:
                row[name] = json.loads(row[name])
    assert cells == [{name: as_cell(_near(value)) for name, value in row.items()} for row in expected]


def _near(value: Any) -> Any:
    """Without the digits that a number of 32 bits has not."""
    if isinstance(value, list):
        return [_near(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@pytest.mark.parametrize("table", EXPORTED_TABLES)
def test_a_period_takes_its_first_moment_and_not_its_last(
    database_url: str, connection: Connection, tmp_path: Path, table: str
) -> None:
    since, until = START + timedelta(hours=1), START + timedelta(hours=4)
    for bounds, wanted in (
        ({"since": since, "until": until}, range(2, 8)),
        ({"since": since}, range(2, len(NASTY))),
        ({"until": until}, range(8)),
    ):
        write_table(database_url, "acme", table, "parquet", tmp_path / "p", **bounds)  # type: ignore[arg-type]
        text = "item_id" if table == "seen_impressions" else "user_id"  # the same in the rows of `connection`
        users = pq.read_table(tmp_path / "p", columns=[text])[text].to_pylist()
        assert sorted(users) == sorted(NASTY[place] for place in wanted)


@pytest.mark.parametrize("file_format", get_args(FileFormat))
def test_a_file_that_grows_too_large_is_given_up(
    database_url: str, connection: Connection, tmp_path: Path, file_format: FileFormat
) -> None:
    with pytest.raises(FileTooLargeError, match="100 bytes"):
        write_table(database_url, "acme", "interactions", file_format, tmp_path / "p", max_bytes=100)


def test_every_column_is_exported_and_the_api_offers_every_table() -> None:
    for name, exported in EXPORTED_TABLES.items():
        columns = {column.name for column in all_tables().tables[name].columns}
        assert set(exported.columns) == columns - {"tenant_id", "xid"}, "decide whether files have the new column"
    assert set(get_args(ExportKind)) == set(EXPORTED_TABLES)
    assert set(get_args(ExportFormat)) == set(get_args(table_files.FileFormat))
