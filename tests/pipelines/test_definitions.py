"""Areas are found by folder, and the names that are stored in Dagster's history do not change."""

import sys
from pathlib import Path

import pytest

from pipelines import defs
from pipelines.definitions import build_definitions
from pipelines.resources import Installation
from training.models.registry import families

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
        *("lake_interactions", "lake_items", "feature_snapshot", "evaluation", "champions", "release"),
        *("pipeline_settings", "drift"),
        *("recommendation_records", "daily_activity", "daily_accuracy"),
        *(family.replace("-", "_") for family in families()),
        *(f"configuration/{family.replace('-', '_')}" for family in families()),
    }
    assert {job for job in repository.job_names if not job.startswith("__")} == {
        *("retrain", "lake", "generate", "analytics", "measure_drift", "search"),
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        *("new_tenants", "retrain_after_interactions", "generation_jobs", "activity", "erasures", "deleted_tenants"),
        *("failed_runs", "searches", "retrain_after_drift"),
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {"nightly", "hourly_analytics", "daily_drift"}
