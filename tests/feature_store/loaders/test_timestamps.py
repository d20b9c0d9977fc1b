"""Timestamps of a file become absolute times."""

import duckdb
import pytest

from feature_store.loaders.mapping import InteractionMapping, TimestampSource
from feature_store.loaders.prepare import INTERACTIONS, KNOWN_ITEMS, prepare_interactions
from feature_store.loaders.prepare import ITEMS as ITEMS_TABLE
from feature_store.loaders.problems import Rejects
from feature_store.loaders.readers import PLACE, describe_table


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("2025-01-01T10:00:00Z", {}),
        ("2025-01-01 12:00:00+02:00", {}),
        ("2025-01-01 12:00:00 +0200", {}),
        ("2025-01-01T10:00Z", {}),
        ("1735725600", {}),
        ("1735725600.0", {}),
        ("1735725600000", {}),
        ("1735725600000000", {}),
        ("1735725600", {"unit": "s"}),
        ("2025-01-01 10:00:00", {"timezone": "UTC"}),
        ("2025-01-01 11:00:00", {"timezone": "Europe/Berlin"}),
        ("2025-01-01T10:00:00Z", {"timezone": "Europe/Berlin"}),
    ],
)
def test_times_are_absolute_however_they_are_written(text: str, timestamp: dict[str, str]) -> None:
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        Rejects(db)
        db.execute(f"CREATE TABLE {ITEMS_TABLE} AS SELECT 'a' AS id")
        db.execute(f"CREATE TABLE {KNOWN_ITEMS} (id VARCHAR)")
        columns = f"1 AS {PLACE}, 'ann' AS userId, 'a' AS itemId, 'like' AS interactionType, '{text}' AS timestamp"
        db.execute(f"CREATE TABLE raw AS SELECT {columns}")
        source = TimestampSource.model_validate({"column": "timestamp", **timestamp})
        staged = describe_table(db, "events.csv", "raw", "csv")
        prepare_interactions(db, staged, InteractionMapping(timestamp=source), "shop")
        instants = db.execute(f"SELECT epoch_us(occurred_at) FROM {INTERACTIONS}").fetchall()
    assert instants == [(1_735_725_600_000_000,)]
