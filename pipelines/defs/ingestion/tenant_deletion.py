"""Deletes the files, models and releases of a deleted tenant, without Dagster."""

from collections.abc import Iterator
from dataclasses import dataclass

from configs.settings import PathSettings
from configs.storage import Storage, open_storage
from feature_store import sources
from feature_store.erasure import rejects_of
from feature_store.lake import tenant_folder
from pipelines.defs.ingestion.steps import export
from pipelines.io_managers import values_folder
from pipelines.resources import Installation
from serving.contracts.releases import release_key


@dataclass(frozen=True)
class Place:
    """A file or folder of a tenant: where it is kept, and under which key."""

    storage: Storage
    key: str

    def delete(self) -> None:
        self.storage.delete(self.key)


def files_of_tenant(paths: PathSettings, tenant_id: str) -> list[Place]:
    """The folders and files of a tenant that exist. The lake is the last, since nothing is trained without one."""
    return [place for place in _places(paths, tenant_id) if place.storage.exists(place.key)]


def delete_tenant_files(installation: Installation, tenant_id: str) -> None:
    """Delete a tenant's experiment, models, releases, features, rejected rows and lake, as far as they exist.

    A model server drops the tenant's release when it next looks for releases.
    """
    from training.tracking.mlflow_store import Tracking  # loads MLflow

    paths = installation.paths
    paths.mlflow.mkdir(parents=True, exist_ok=True)
    Tracking(installation.tracking.resolve(paths), paths.mlflow / "artifacts").delete_experiment(tenant_id)
    for place in files_of_tenant(paths, tenant_id):
        place.delete()


def follow_database(installation: Installation) -> str:
    """Bring the files of all tenants in line with the database, after a restore; returns what was done.

    Exports every tenant's lake, which erases whom the database has erased, and deletes the files of deleted tenants.
    What MLflow holds of those is deleted by the sensor `deleted_tenants`, which a file in their lake tells of them.
    """
    url, exported, lake = installation.database_url(), [], open_storage(installation.paths.lake)
    for tenant_id in sources.tenants(url):
        if lake.exists(tenant_folder(installation.paths.lake, tenant_id).name):
            exported.append(export(installation, tenant_id))
    deleted = 0
    known = {*sources.tenants(url), *sources.deleted_tenants(url)}
    in_lake = {name.removeprefix("tenant=") for name in lake.folders() if name.startswith("tenant=")}
    unknown = ", ".join(sorted(in_lake - known)) or "none"
    for tenant_id in sources.deleted_tenants(url):
        if places := files_of_tenant(installation.paths, tenant_id):
            for place in places:
                place.delete()
            lake.put_text(f"{tenant_folder(installation.paths.lake, tenant_id).name}/deleted", "")
            deleted += 1
    added, removed, erased = (
        sum(getattr(each, name) for each in exported) for name in ("new_rows", "removed_rows", "erased_users")
    )
    return (
        f"{len(exported)} tenants in line with the database: {added} rows added, {removed} removed, "
        f"{erased} erased users applied, files of {deleted} deleted tenants removed; lakes of tenants that the "
        f"database does not know, to be deleted by hand: {unknown}"
    )


def _places(paths: PathSettings, tenant_id: str) -> Iterator[Place]:
    yield Place(open_storage(paths.bentoml), release_key(tenant_id))
    rejects, values = open_storage(paths.rejects), open_storage(values_folder(paths))
    yield from (Place(rejects, key) for key in rejects_of(paths.rejects, tenant_id).values())
    yield from (Place(values, key) for key in values.files() if key.endswith(f"/{tenant_id}.json"))
    for root in (paths.exports, paths.recommendations, paths.models, paths.features, paths.lake):
        yield Place(open_storage(root), tenant_folder(root, tenant_id).name)
