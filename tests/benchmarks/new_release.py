"""Publishes a tenant's newest release once more, under a new id: what a swap is measured with."""

import msgspec

from serving.contracts.releases import ITEMS_FILE, MANIFEST_FILE, ReleaseManifest, SavedModel
from serving.release import ReleaseMember, list_releases, publish, release_folder
from tests.benchmarks.running_demo import RunningDemo
from tests.fixtures.platform import wait_until


def publish_again(demo: RunningDemo, tenant_id: str) -> str:
    """The id of the new release. The model server has not loaded it yet."""
    home = demo.paths.bentoml
    folder = release_folder(home, tenant_id, list_releases(home)[tenant_id][0])
    manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=ReleaseManifest)

    def member(saved: SavedModel) -> ReleaseMember:
        base_models = {
            family: ReleaseMember(relative.rpartition("-")[2], folder / relative)
            for family, relative in saved.base_models.items()
        }
        return ReleaseMember(saved.version, folder / saved.folder, base_models)

    return publish(
        tenant_id,
        {family: member(saved) for family, saved in manifest.families.items()},
        folder / ITEMS_FILE,
        manifest.catalogue_version,
        home=home,
        notes=manifest.notes,
    )


def await_release(demo: RunningDemo, tenant_id: str, release: str) -> None:
    """Wait until the model server answers with this release."""
    wait_until(f"release {release}", lambda: demo.releases().get(tenant_id, {}).get("release") == release)
