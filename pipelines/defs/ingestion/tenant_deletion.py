"""Deletes the files, models and releases of a deleted tenant, without Dagster."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from configs.settings import PathSettings
from feature_store import sources
from feature_store.erasure import rejects_of
from feature_store.lake import tenant_folder
from pipelines.defs.ingestion.steps import export
from pipelines.io_managers import values_folder
from pipelines.resources import Installation


def files_of_tenant(paths: PathSettings, tenant_id: str) -> list[Path]:
    """The folders and files of a tenant that exist. The lake is the last, since nothing is trained without one."""
    return [path for path in _places(paths, tenant_id) if path.exists()]


def delete_tenant_files(installation: Installation, tenant_id: str) -> None:
    """Delete a tenant's experiment, models, releases, features, rejected rows and lake, as far as they exist.

    A model server drops the tenant's release when it next looks for releases.
    """
    from training.tracking.mlflow_store import Tracking  # loads MLflow

    paths = installation.paths
    paths.mlflow.mkdir(parents=True, exist_ok=True)
    Tracking(installation.tracking.resolve(paths), paths.mlflow / "artifacts").delete_experiment(tenant_id)
    for path in files_of_tenant(paths, tenant_id):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def follow_database(installation: Installation) -> str:
    """Bring the files of all tenants in line with the database, after a restore; returns what was done.

    Exports every tenant's lake, which erases whom the database has erased, and deletes the files of deleted tenants.
    What MLflow holds of those is deleted by the sensor `deleted_tenants`, which their empty lake tells of them.
    """
    url, exported = installation.database_url(), []
    for tenant_id in sources.tenants(url):
        if tenant_folder(installation.paths.lake, tenant_id).exists():
            exported.append(export(installation, tenant_id))
    deleted = 0
    known = {*sources.tenants(url), *sources.deleted_tenants(url)}
    in_lake = {folder.name.removeprefix("tenant=") for folder in installation.paths.lake.glob("tenant=*")}
    unknown = ", ".join(sorted(in_lake - known)) or "none"
    for tenant_id in sources.deleted_tenants(url):
        if files := files_of_tenant(installation.paths, tenant_id):
            for path in files:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            tenant_folder(installation.paths.lake, tenant_id).mkdir(parents=True)
            deleted += 1
    added, removed, erased = (
        sum(getattr(each, name) for each in exported) for name in ("new_rows", "removed_rows", "erased_users")
    )
    return (
        f"{len(exported)} tenants in line with the database: {added} rows added, {removed} removed, "
        f"{erased} erased users applied, files of {deleted} deleted tenants removed; lakes of tenants that the "
        f"database does not know, to be deleted by hand: {unknown}"
    )


def _places(paths: PathSettings, tenant_id: str) -> Iterator[Path]:
    yield paths.bentoml / "models" / f"release-{tenant_id}"
    yield from rejects_of(paths.rejects, tenant_id).values()
    yield from sorted(values_folder(paths).glob(f"*/{tenant_id}.json"))
    for root in (paths.models, paths.features, paths.lake):
        yield tenant_folder(root, tenant_id)
