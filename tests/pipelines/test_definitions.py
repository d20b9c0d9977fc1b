"""Areas are found by folder, and the names that are stored in Dagster's history do not change."""

import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from configs.pipelines import PipelineSettings
from feature_store.column_descriptions import DESCRIPTIONS
from feature_store.schemas import (
    LAKE_INTERACTIONS,
    LAKE_ITEMS,
    RECOMMENDATIONS,
    SNAPSHOT_INTERACTIONS,
    SNAPSHOT_ITEMS,
)
from pipelines import defs
from pipelines.definitions import build_definitions
from pipelines.resources import Installation
from training.models.registry import families

ROOT = Path(__file__).resolve().parents[2]
AREA = """
import dagster as dg


@dg.asset
def clicks_by_hour() -> None: ...


def definitions(installation):
    return dg.Definitions(assets=[clicks_by_hour])
"""


def test_an_area_is_added_by_adding_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installation: Installation
) -> None:
    area = tmp_path / "new_area"
    area.mkdir()
    (area / "__init__.py").touch()
    (area / "definitions.py").write_text(AREA)
    monkeypatch.setattr(defs, "__path__", [*defs.__path__, str(tmp_path)])
    try:
        found = build_definitions(installation).resolve_asset_graph().get_all_asset_keys()
    finally:
        for name in ("pipelines.defs.new_area", "pipelines.defs.new_area.definitions"):
            sys.modules.pop(name, None)
    assert "clicks_by_hour" in {key.to_user_string() for key in found}


def test_every_area_hands_over_its_definitions() -> None:
    areas = [path for path in Path(defs.__file__ or "").parent.iterdir() if (path / "__init__.py").exists()]
    assert {path.name for path in areas} >= {"ingestion", "features", "training", "publishing", "generation"}
    assert all((path / "definitions.py").exists() for path in areas)


def test_names_in_dagsters_history_stay(installation: Installation) -> None:
    """Runs, materializations and switched sensors are stored under these names; a renamed one would lose its past."""
    repository = build_definitions(installation).get_repository_def()
    assets = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert assets == {
        *("lake_interactions", "lake_items", "feature_snapshot", "training_plan"),
        *("evaluation", "champions", "release"),
        *("pipeline_settings", "drift", "item_lists", "segment_members"),
        *("recommendation_records", "daily_activity", "daily_accuracy"),
        *(family.replace("-", "_") for family in families()),
        *(f"configuration/{family.replace('-', '_')}" for family in families()),
    }
    assert {job for job in repository.job_names if not job.startswith("__")} == {
        *("retrain", "lake", "generate", "analytics", "measure_drift", "search", "publish", "lists"),
        *("export_files", "backfill"),
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        *("new_tenants", "retrain_after_interactions", "generation_jobs", "activity", "erasures", "deleted_tenants"),
        *(
            "failed_runs",
            "searches",
            "retrain_after_drift",
            "moved_aliases",
            "outdated_lists",
            "export_jobs",
            "old_runs",
            "old_models",
            "queue_order",
            "long_runs",
            "cut_off_runs",
            "old_interactions",
            "old_recommendation_files",
        ),
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {"nightly", "hourly_analytics", "daily_drift"}


def test_every_asset_names_owners_code_and_columns_and_no_path_of_this_machine(installation: Installation) -> None:
    pipeline = PipelineSettings(owners=("ann@example.com",), source_url="https://git.example/shop/blob/main/")
    linked = replace(installation, pipeline=pipeline)
    graph = build_definitions(linked).resolve_asset_graph()
    shown = {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}
    for name, node in shown.items():
        assert list(node.owners) == ["ann@example.com"]
        if name != "recommendation_records":  # which a job writes, and no function of its own
            file, _, line = str(node.metadata["source"]).partition(":")
            assert (ROOT / file).is_file() and int(line) > 0
            (link,) = node.metadata["dagster/code_references"].code_references
            assert link.url == f"https://git.example/shop/blob/main/{file}#L{line}"
        assert str(ROOT) not in str(node.metadata)
    columns = {name: node.metadata["dagster/column_schema"] for name, node in shown.items() if "lake" in name}
    assert [column.name for column in columns["lake_items"].columns] == LAKE_ITEMS.names
    assert all(column.description for schema in columns.values() for column in schema.columns)
    fresh = {name for name, node in shown.items() if node.freshness_policy is not None}
    assert fresh == {"lake_interactions", "lake_items", "feature_snapshot", "daily_activity", "drift"}
    plain = build_definitions(installation).resolve_asset_graph().get(dg.AssetKey("lake_items"))
    assert list(plain.owners) == ["team:recommendations"] and "dagster/code_references" not in plain.metadata


def test_every_column_of_a_shown_schema_is_described() -> None:
    shown = (LAKE_INTERACTIONS, LAKE_ITEMS, SNAPSHOT_INTERACTIONS, SNAPSHOT_ITEMS, RECOMMENDATIONS)
    assert {field.name for schema in shown for field in schema} <= DESCRIPTIONS.keys()
