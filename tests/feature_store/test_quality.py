"""Each check finds what it is there for, counts it and says it; a good lake passes them all."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_store import columns as c
from feature_store.lake import TenantLake
from feature_store.quality import CHECKS, Finding, check_lake
from feature_store.schemas import LAKE_INTERACTIONS
from tests.feature_store.lakes import START, interaction, write_lake

GOOD = [interaction(1, "ann", "x"), interaction(2, "ann", "y", 1), interaction(3, "ben", "x", 2)]
CATALOGUE = {"x": '{"title": "X"}', "y": "{}"}


def checked(lake: TenantLake, at_least: int = 3, age: timedelta = timedelta(hours=1)) -> dict[tuple[str, str], Finding]:
    exported_at = lake.cursor().exported_at
    assert exported_at is not None
    return check_lake(lake, at_least, START.fromisoformat(exported_at) + age)


def failing(findings: dict[tuple[str, str], Finding]) -> set[tuple[str, str]]:
    return {name for name, finding in findings.items() if not finding.passed}


def test_a_good_lake_passes_every_check(tmp_path: Path) -> None:
    findings = checked(write_lake(tmp_path, GOOD, CATALOGUE))
    assert set(findings) == set(CHECKS)
    assert not failing(findings)
    assert findings["interactions", "volume"].counts == {"interactions": 3, "users": 2, "items": 2, "needed": 3}


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({c.USER_ID: ""}, "illegal_user_ids"),
        ({c.USER_ID: "u" * 257}, "illegal_user_ids"),
        ({c.ITEM_ID: "a\x07b"}, "illegal_item_ids"),
        ({c.INTERACTION_TYPE: "stare"}, "unknown_types"),
        ({c.VALUE: 1.5}, "values_outside_0_1"),
        ({c.VALUE: float("nan")}, "values_outside_0_1"),
        ({c.INTERACTION_ID: ""}, "interactions_without_id"),
    ],
)
def test_an_illegal_key_or_value_is_counted(tmp_path: Path, change: dict[str, Any], count: str) -> None:
    findings = checked(write_lake(tmp_path, [*GOOD, interaction(4, "cy", "x", **change)], CATALOGUE))
    assert failing(findings) == {("interactions", "keys")}
    finding = findings["interactions", "keys"]
    assert finding.counts[count] == 1
    assert finding.description == f"1 {count.replace('_', ' ')}"


def test_an_id_of_256_characters_of_any_script_is_legal(tmp_path: Path) -> None:
    findings = checked(write_lake(tmp_path, [*GOOD, interaction(4, "ü" * 256, "x")], CATALOGUE))
    assert not failing(findings)


def test_null_never_enters_the_lake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="null"):
        write_lake(tmp_path, [interaction(4, None, "x")], CATALOGUE)


def test_too_few_interactions_say_how_many_are_missing(tmp_path: Path) -> None:
    unknown = interaction(4, "ann", "not in the catalogue", 3)
    findings = checked(write_lake(tmp_path, [*GOOD, unknown], CATALOGUE), at_least=10)
    assert failing(findings) == {("interactions", "volume")}
    assert findings["interactions", "volume"].description == "3 interactions, 7 more until the first model"


def test_no_interactions_at_all_are_too_few(tmp_path: Path) -> None:
    assert failing(checked(write_lake(tmp_path, [], {}))) == {("interactions", "volume")}


def test_an_export_older_than_a_day_is_stale(tmp_path: Path) -> None:
    lake = write_lake(tmp_path, GOOD, CATALOGUE)
    assert failing(checked(lake, age=timedelta(hours=25))) == {("interactions", "freshness")}


def test_events_dated_after_their_arrival_are_counted(tmp_path: Path) -> None:
    early = interaction(4, "ann", "x", **{c.TIMESTAMP: START + timedelta(days=9)})
    findings = checked(write_lake(tmp_path, [*GOOD, early], CATALOGUE))
    assert findings["interactions", "freshness"].counts["events_after_ingestion"] == 1


def test_a_repeated_row_passes_and_a_conflict_does_not(tmp_path: Path) -> None:
    lake = write_lake(tmp_path, GOOD, CATALOGUE)
    write_lake(tmp_path, GOOD[:1])
    findings = checked(lake)
    assert not failing(findings)
    assert findings["interactions", "duplicates"].counts == {"repeated_rows": 1, "conflicting_ids": 0}
    write_lake(tmp_path, [interaction(1, "ann", "y")])
    findings = checked(lake)
    assert failing(findings) == {("interactions", "duplicates")}
    assert findings["interactions", "duplicates"].counts == {"repeated_rows": 2, "conflicting_ids": 1}


def test_a_file_of_another_schema_is_named_and_nothing_else_passes(tmp_path: Path) -> None:
    lake = write_lake(tmp_path, GOOD, CATALOGUE)
    file = lake.interaction_files()[0]
    other = pa.schema(
        [field for field in LAKE_INTERACTIONS if field.name != c.VALUE] + [pa.field(c.VALUE, pa.string())]
    )
    pa.parquet.write_table(pa.Table.from_pylist([], schema=other), file)
    findings = checked(lake)
    assert findings["interactions", "schema"].description.endswith("lacks value: float; has value: string")
    assert str(file) in findings["interactions", "schema"].description
    assert failing(findings) == {name for name in CHECKS if name != ("items", "schema")}


def test_metadata_that_is_no_object_fails(tmp_path: Path) -> None:
    findings = checked(write_lake(tmp_path, GOOD, {**CATALOGUE, "z": "[1]"}))
    assert failing(findings) == {("items", "keys")}
    assert findings["items", "keys"].counts["metadata_not_an_object"] == 1
