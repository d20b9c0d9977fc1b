"""What a deleted tenant leaves in files, without Dagster."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from configs.settings import PathSettings
from feature_store.erasure import rejects_of
from feature_store.lake import tenant_folder
from pipelines.resources import Installation


def left_by(paths: PathSettings, tenant_id: str) -> list[Path]:
    """The folders and files of a tenant that are there; its lake, without which nothing was trained, is the last."""
    return [path for path in _places(paths, tenant_id) if path.exists()]


def forget_tenant(installation: Installation, tenant_id: str) -> None:
    """Delete a tenant's experiment, models, releases, features, rejected rows and lake; what is gone already is fine.

    A model server lets go of its release when it next looks.
    """
    from training.tracking.mlflow_store import Tracking  # loads MLflow

    paths = installation.paths
    paths.mlflow.mkdir(parents=True, exist_ok=True)
    Tracking(installation.tracking.resolve(paths), paths.mlflow / "artifacts").delete_experiment(tenant_id)
    for path in left_by(paths, tenant_id):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _places(paths: PathSettings, tenant_id: str) -> Iterator[Path]:
    yield paths.bentoml / "models" / f"release-{tenant_id}"
    yield from rejects_of(paths.rejects, tenant_id).values()
    yield from sorted((paths.dagster / "values").glob(f"*/{tenant_id}.json"))
    for root in (paths.models, paths.features, paths.lake):
        yield tenant_folder(root, tenant_id)
