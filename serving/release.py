"""Releases in BentoML's model store: publishing, finding and pruning them. Files only; nothing is ever pickled.

A tenant's releases are versions of the BentoML model `release-<tenant>`. A version is the time of publication, so
that the newest is the largest. BentoML copies a version into place file by file and moves the pointer `latest` when
it is whole: versions past the pointer are being written, or were left by a crash, and are not read.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bentoml
import msgspec
from bentoml._internal.models import ModelStore

from serving.contracts.releases import ITEMS_FILE, MANIFEST_FILE, MODELS_FOLDER, Manifest, SavedModel

KEEP = 5
"""Releases that stay in the store: the served one, and some to look back at."""
_PREFIX = "release-"
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
    """Make one immutable release of a tenant's champions and return its id; then drop all but the `keep` newest.

    Args:
        tenant_id: whose.
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
        manifest = Manifest(
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


def releases(home: Path) -> dict[str, list[str]]:
    """Ids of the complete releases of every tenant, newest first. Reads names only, so that it can be polled."""
    found = {}
    models = home / "models"
    for pointer in models.glob(f"{_PREFIX}*/latest"):
        latest = pointer.read_text().strip()
        versions = sorted((path.name for path in pointer.parent.iterdir() if path.is_dir()), reverse=True)
        complete = [version for version in versions if version <= latest]
        if complete:
            found[pointer.parent.name.removeprefix(_PREFIX)] = complete
    return found


def release_folder(home: Path, tenant_id: str, release: str) -> Path:
    """Where a release lies."""
    return home / "models" / f"{_PREFIX}{tenant_id}" / release


def prune(tenant_id: str, *, home: Path, keep: int = KEEP) -> list[str]:
    """Delete all but a tenant's `keep` newest complete releases, and what a crash left behind. Returns what went.

    A server goes on with a release that was deleted under it: it holds it in memory.
    """
    complete = releases(home).get(tenant_id, [])
    dropped = complete[keep:]
    for release in dropped:
        shutil.rmtree(release_folder(home, tenant_id, release))
    return dropped


def _store(home: Path) -> ModelStore:
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    (home / "models").mkdir(parents=True, exist_ok=True)
    return ModelStore(home / "models")


def _next_moment(home: Path, tenant_id: str) -> datetime:
    """Now, or just after the newest release where a clock went back: the newest is the largest, always."""
    now = datetime.now(UTC)
    newest = next(iter(releases(home).get(tenant_id, [])), None)
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
