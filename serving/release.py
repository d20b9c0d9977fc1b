"""Releases in BentoML's model store: publishing, listing and pruning them. A release holds files; nothing is pickled.

A tenant's releases are versions of the BentoML model `release-<tenant>`. A version is the time of publication, so
the newest is the largest. BentoML copies a version into place file by file and then moves the pointer `latest` to it.
Versions above the pointer are incomplete: they are being written, or a crash left them. They are never read.
"""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bentoml
import msgspec
from bentoml._internal.models import ModelStore

from serving.contracts.releases import ITEMS_FILE, MANIFEST_FILE, MODELS_FOLDER, ReleaseManifest, SavedModel

KEEP = 5
"""Releases that stay in the store: the served one, and earlier ones to go back to or to measure."""
_PREFIX = "release-"
_POINTER_SECONDS = 0.5
_VERSION = "%Y%m%d-%H%M%S-%f"


@dataclass(frozen=True)
class ReleaseMember:
    """A saved model that goes into a release, with the saved models that it combines."""

    version: str  # in the model registry
    folder: Path
    base_models: Mapping[str, "ReleaseMember"] = field(default_factory=dict)  # by family


def publish(
    tenant_id: str,
    members: Mapping[str, ReleaseMember],
    items: Path,
    catalogue_version: int,
    *,
    home: Path,
    notes: Mapping[str, str] | None = None,
    keep: int = KEEP,
) -> str:
    """Publish a tenant's champions as one immutable release and return its id. Then prune all but the `keep` newest.

    Args:
        tenant_id: the tenant whose champions these are.
        members: saved models by family (`training.models.registry.save_model`, with their score maps).
        items: parquet file of `SNAPSHOT_ITEMS`, the positions that the models were trained on.
        catalogue_version: that of `items`.
        home: BentoML's home folder (`PathSettings.bentoml`).
        notes: words for a reader, such as which base model an ensemble kept.

    Raises ValueError without members, FileNotFoundError where a folder or the item table is missing.
    """
    if not members:
        raise ValueError(f"a release of {tenant_id} needs at least one model")
    store = _store(home)
    now = _next_moment(home, tenant_id)
    release = now.strftime(_VERSION)
    labels = {"tenant": tenant_id, "catalogue_version": str(catalogue_version)}
    with bentoml.models.create(f"{_PREFIX}{tenant_id}:{release}", labels=labels, _model_store=store) as model:
        folder = Path(model.path)
        shutil.copyfile(items, folder / ITEMS_FILE)
        families = {family: _add(folder, family, member) for family, member in members.items()}
        manifest = ReleaseManifest(
            release=release,
            tenant_id=tenant_id,
            created_at=now.isoformat().replace("+00:00", "Z"),
            catalogue_version=catalogue_version,
            families=families,
            files=_sizes(folder),
            notes=dict(notes or {}),
        )
        (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    prune(tenant_id, home=home, keep=keep)
    return release


def list_releases(home: Path) -> dict[str, list[str]]:
    """Ids of the complete releases by tenant, newest first. It reads file names only, so it is cheap to poll."""
    found = {}
    models = home / "models"
    for pointer in models.glob(f"{_PREFIX}*/latest"):
        latest = _latest(pointer)
        versions = sorted((path.name for path in pointer.parent.iterdir() if path.is_dir()), reverse=True)
        if latest:
            complete = [version for version in versions if version <= latest]
        else:  # a crash left the pointer empty: loading checks the files of what has a manifest
            complete = [version for version in versions if (pointer.parent / version / MANIFEST_FILE).exists()]
        if complete:
            found[pointer.parent.name.removeprefix(_PREFIX)] = complete
    return found


def _latest(pointer: Path) -> str:
    """What the pointer says. BentoML empties the file before it writes it, so an empty one is read again."""
    deadline = time.monotonic() + _POINTER_SECONDS
    while not (latest := pointer.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return latest


def release_folder(home: Path, tenant_id: str, release: str) -> Path:
    """The folder of a release."""
    return home / "models" / f"{_PREFIX}{tenant_id}" / release


def prune(tenant_id: str, *, home: Path, keep: int = KEEP) -> list[str]:
    """Delete all but a tenant's `keep` newest complete releases. Returns the ids of the deleted ones.

    A server that has a deleted release loaded goes on serving it, since it holds all of it in memory.
    """
    complete = list_releases(home).get(tenant_id, [])
    dropped = complete[keep:]
    for release in dropped:
        shutil.rmtree(release_folder(home, tenant_id, release))
    return dropped


def _store(home: Path) -> ModelStore:
    # A private class, because the public functions know one store only: that of BENTOML_HOME, read once a process.
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    (home / "models").mkdir(parents=True, exist_ok=True)
    return ModelStore(home / "models")


def _next_moment(home: Path, tenant_id: str) -> datetime:
    """Now; where the clock went back, just after the newest release, so that the newest is always the largest."""
    now = datetime.now(UTC)
    newest = next(iter(list_releases(home).get(tenant_id, [])), None)
    if newest is None:
        return now
    after = datetime.strptime(newest, _VERSION).replace(tzinfo=UTC) + timedelta(microseconds=1)
    return max(now, after)


def _add(folder: Path, family: str, member: ReleaseMember) -> SavedModel:
    """Copy a member and its base models, each once."""
    base_models = {name: _add(folder, name, component).folder for name, component in member.base_models.items()}
    target = f"{MODELS_FOLDER}/{family}-{member.version}"
    if not (folder / target).exists():
        shutil.copytree(member.folder, folder / target)
    return SavedModel(member.version, target, base_models)


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
