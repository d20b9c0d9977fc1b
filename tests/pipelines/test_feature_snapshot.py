"""The asset `feature_snapshot` in ranges of users, as the settings say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pyarrow.parquet as pq

from configs.features import FeatureSettings
from feature_store.snapshot_files import SnapshotManifest, snapshot_folder, snapshot_parts
from feature_store.statistics import interactions_per_day, item_popularity, most_popular_items
from pipelines.defs.features.assets import feature_snapshot
from pipelines.io_managers import JsonIOManager
from pipelines.resources import Installation
from tests.feature_store.lakes import interaction, write_lake
from tests.pipelines.conftest import TENANT


def made(installation: Installation, instance: dg.DagsterInstance, folder: Path) -> dict[str, Any]:
    resources = {"installation": installation, "io_manager": JsonIOManager(folder=str(folder))}
    result = dg.materialize([feature_snapshot], partition_key=TENANT, resources=resources, instance=instance)
    return dict(result.output_for_node("feature_snapshot"))


def test_the_asset_gives_the_same_snapshot_in_ranges(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    instance.add_dynamic_partitions("tenants", [TENANT])
    events = [interaction(number, f"user-{number % 5}", "xyy"[number % 3], number) for number in range(30)]
    write_lake(installation.paths.lake, events, {"x": "{}", "y": "{}"})
    whole = made(installation, instance, tmp_path / "values")
    elsewhere = replace(
        installation,
        paths=installation.paths.model_copy(update={"state_dir": tmp_path / "elsewhere"}),
        features=FeatureSettings(range_events=10, task_memory_mb=256),
    )
    write_lake(elsewhere.paths.lake, events, {"x": "{}", "y": "{}"})
    divided = made(elsewhere, instance, tmp_path / "values")
    assert divided["snapshot_id"] == whole["snapshot_id"]
    assert (len(whole["parts"]), len(divided["parts"])) == (1, 3)
    manifest = SnapshotManifest.of(divided)
    folder = snapshot_folder(elsewhere.paths.features, TENANT, manifest.snapshot_id)
    assert sum(pq.read_metadata(part).num_rows for part in snapshot_parts(folder)) == manifest.n_interactions == 30
    assert item_popularity(folder).tolist() == [20, 10]
    assert interactions_per_day(folder)[1].tolist() == [30]
    popular = [(row["item_id"], row["interactions"], row["users"]) for row in most_popular_items(folder)]
    assert popular == [("y", 20, 5), ("x", 10, 5)]
