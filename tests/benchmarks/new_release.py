"""Publishes a tenant's release once more, under a new id: what a swap is measured with."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np

from serving.contracts.releases import ITEMS_FILE, MANIFEST_FILE, MODELS_FOLDER, ReleaseManifest, SavedModel
from serving.release import ReleaseMember, list_releases, publish, release_folder
from tests.benchmarks.running_demo import RunningDemo
from tests.fixtures.platform import wait_until

SCORE_MAP = "score_map.json"


def newest_release(demo: RunningDemo, tenant_id: str) -> Path:
    """The folder of the tenant's newest release."""
    home = demo.paths.bentoml
    return release_folder(home, tenant_id, list_releases(home)[tenant_id][0])


def publish_again(demo: RunningDemo, tenant_id: str, folder: Path | None = None) -> str:
    """Publish a release folder, else the tenant's newest release. The model server has not loaded it yet.

    Returns the id of the new release.
    """
    source = folder or newest_release(demo, tenant_id)
    manifest = msgspec.json.decode((source / MANIFEST_FILE).read_bytes(), type=ReleaseManifest)

    def member(saved: SavedModel) -> ReleaseMember:
        base_models = {
            family: ReleaseMember(relative.rpartition("-")[2], source / relative)
            for family, relative in saved.base_models.items()
        }
        return ReleaseMember(saved.version, source / saved.folder, base_models)

    return publish(
        tenant_id,
        {family: member(saved) for family, saved in manifest.families.items()},
        source / ITEMS_FILE,
        manifest.catalogue_version,
        home=demo.paths.bentoml,
        notes=manifest.notes,
    )


def altered_copy(release: Path, target: Path) -> Path:
    """A copy of a release folder whose answers differ in items and scores.

    Square matrices of item weights are transposed, and every family's map of scores is moved.
    """
    shutil.copytree(release, target)
    for path in (target / MODELS_FOLDER).rglob("linear.npz"):
        with np.load(path) as file:
            arrays = {
                name: array.T if array.ndim == 2 and len(array) == len(array.T) else array
                for name, array in file.items()
            }
        np.savez(path, **{name: np.ascontiguousarray(array) for name, array in arrays.items()})
    for path in (target / MODELS_FOLDER).rglob(SCORE_MAP):
        score_map = json.loads(path.read_text())
        path.write_text(json.dumps({**score_map, "center": score_map["center"] + score_map["scale"]}))
    return target


def await_release(demo: RunningDemo, tenant_id: str, release: str) -> None:
    """Wait until the model server answers with this release."""
    wait_until(f"release {release}", lambda: demo.releases().get(tenant_id, {}).get("release") == release)
