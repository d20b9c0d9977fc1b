"""The running platform for notebooks: its settings come from the environment, as those of the pipeline do.

`TENANT` names the tenant; without it, the first one that has a lake. Nothing here writes.
"""

import os

import pandas as pd

from configs.history import HistorySettings
from configs.settings import PathSettings
from configs.tracking import TrackingSettings
from feature_store.lake import TenantLake
from feature_store.snapshot_files import SnapshotManifest, read_snapshot_manifest, snapshot_folder
from serving.predictor import Predictor
from serving.release import list_releases, release_folder
from training.data.dataset import Dataset, load_snapshot
from training.tracking.mlflow_store import Tracking

pd.options.display.html.use_mathjax = False
"""Titles are tenants' text: a notebook shows `$` in them as it is. Tags in cells of a frame are escaped by pandas."""


def chosen_tenant() -> str:
    """The tenant of `TENANT`, or the first with a lake. Raises LookupError where there is none."""
    if named := os.environ.get("TENANT"):
        return named
    found = sorted(folder.name.removeprefix("tenant=") for folder in PathSettings().lake.glob("tenant=*"))
    if not found:
        raise LookupError(f"no tenant has a lake in {PathSettings().lake}: run the pipeline first, as `make demo` does")
    return found[0]


def lake_of(tenant: str) -> TenantLake:
    """The Parquet files of a tenant."""
    return TenantLake(PathSettings().lake, tenant)


def registry() -> Tracking:
    """The installation's MLflow: its server where `MLFLOW_TRACKING_URI` names one, else its own store."""
    paths = PathSettings()
    return Tracking(TrackingSettings().resolve(paths), paths.mlflow / "artifacts")


def newest_manifest(tenant: str) -> SnapshotManifest:
    """The description of the newest snapshot. Raises LookupError before the first training."""
    folder = snapshot_folder(PathSettings().features, tenant, "")
    manifests = [read_snapshot_manifest(path.parent) for path in folder.glob("*/manifest.json")]
    if not manifests:
        raise LookupError(f"tenant {tenant} has no snapshot in {folder}: run the pipeline first")
    return max(manifests, key=lambda manifest: manifest.created_at)


def newest_snapshot(tenant: str) -> Dataset:
    """The data that models were trained on last. Raises LookupError before the first training."""
    folder = snapshot_folder(PathSettings().features, tenant, newest_manifest(tenant).snapshot_id)
    return load_snapshot(folder, HistorySettings().max_events)


def newest_release(tenant: str) -> Predictor:
    """What the model server serves, loaded here. Raises LookupError before the first release."""
    home = PathSettings().bentoml
    releases = list_releases(home).get(tenant, [])
    if not releases:
        raise LookupError(f"tenant {tenant} has no release in {home}: run the pipeline first")
    return Predictor.load(release_folder(home, tenant, releases[0]), HistorySettings().max_events)
