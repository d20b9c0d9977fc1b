"""Releases in BentoML's model store: publishing, listing and pruning them. A release holds files; nothing is pickled.

A tenant's releases are versions of the BentoML model `release-<tenant>`. A version is the time of publication, so
the newest is the largest. BentoML writes a version in a work folder; from there it is put into place at once, and then
the pointer `latest` is moved to it. Versions above the pointer are not complete: BentoML's own tools copy file by file,
and so did earlier versions of this module, which a crash may have interrupted. They are never read.
"""

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bentoml
import msgspec
from bentoml._internal.models import ModelStore

from configs.storage import Storage, open_storage
from serving.contracts.releases import (
    ITEMS_FILE,
    MANIFEST_FILE,
    MODELS_FOLDER,
    RELEASE_PREFIX,
    ReleaseManifest,
    SavedModel,
    StoreListing,
    release_key,
)

KEEP = 5
"""Releases that stay in the store: the served one, and earlier ones to go back to or to measure."""
_MODELS = "models"
"""Where BentoML keeps its models, below its home folder."""
_POINTER = "latest"
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
    storage = open_storage(home)
    with storage.lock(), storage.work_folder() as work:
        now = _next_moment(home, tenant_id)
        release = now.strftime(_VERSION)
        labels = {"tenant": tenant_id, "catalogue_version": str(catalogue_version)}
        tag, store = f"{RELEASE_PREFIX}{tenant_id}:{release}", _store(work)
        with bentoml.models.create(tag, labels=labels, _model_store=store) as model:
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
        with storage.put_folder(release_key(tenant_id, release)) as folder:
            for path in (work / release_key(tenant_id, release)).iterdir():
                shutil.move(path, folder / path.name)
        storage.put_text(release_key(tenant_id, _POINTER), release)
    prune(tenant_id, home=home, keep=keep)
    return release


def read_store(home: Path) -> StoreListing:
    """The complete releases of every tenant. It reads file names only, so it is cheap to poll.

    A tenant whose folder cannot be read is named, and does not keep the others from being listed.
    """
    storage = open_storage(home).listed(_MODELS)
    names = [name for name in storage.folders(_MODELS) if name.startswith(RELEASE_PREFIX)]
    tenants = [name.removeprefix(RELEASE_PREFIX) for name in names]
    latest = _read_pointers(storage, tenants)
    releases: dict[str, list[str]] = {}
    unreadable: dict[str, str] = {}
    for tenant_id in tenants:
        try:
            if complete := _complete(storage, tenant_id, latest[tenant_id]):
                releases[tenant_id] = complete
        except (OSError, ValueError) as error:  # ValueError: a pointer that is no text
            unreadable[tenant_id] = repr(error)
    return StoreListing(releases, unreadable)


def list_releases(home: Path) -> dict[str, list[str]]:
    """Ids of the complete releases by tenant, newest first, of the tenants whose folder can be read."""
    return read_store(home).releases


def tenant_releases(home: Path, tenant_id: str) -> list[str]:
    """Ids of one tenant's complete releases, newest first. Raises OSError where its folder cannot be read."""
    storage = open_storage(home)
    return _complete(storage, tenant_id, _read_pointers(storage, [tenant_id])[tenant_id])


def newest_manifest(home: Path, tenant_id: str) -> ReleaseManifest | None:
    """The manifest of a tenant's newest complete release; None where there is no release.

    Raises OSError where it cannot be read, and msgspec.DecodeError where it is damaged.
    """
    release = next(iter(tenant_releases(home, tenant_id)), None)
    if release is None:
        return None
    return read_manifest(home, tenant_id, release)


def read_manifest(home: Path, tenant_id: str, release: str) -> ReleaseManifest:
    """The manifest of a release. Raises as `newest_manifest` does."""
    file = open_storage(home).local(f"{release_key(tenant_id, release)}/{MANIFEST_FILE}")
    return msgspec.json.decode(file.read_bytes(), type=ReleaseManifest)


def release_size(home: Path, tenant_id: str, release: str) -> int:
    """Bytes of a release's files; 0 where they cannot be read, which loading will report."""
    try:
        return open_storage(home).size(release_key(tenant_id, release))
    except OSError:
        return 0


def _complete(storage: Storage, tenant_id: str, latest: str | OSError | ValueError) -> list[str]:
    """A tenant's complete versions, newest first. latest: what the pointer says, or why it cannot."""
    if isinstance(latest, FileNotFoundError):
        return []  # the first release of the tenant is being written
    if not isinstance(latest, str):
        raise latest
    versions = sorted(storage.folders(release_key(tenant_id)), reverse=True)
    if latest:
        return [version for version in versions if version <= latest]
    # A crash left the pointer empty: loading checks the files of what has a manifest.
    return [version for version in versions if storage.exists(f"{release_key(tenant_id, version)}/{MANIFEST_FILE}")]


def _read_pointers(storage: Storage, tenants: Iterable[str]) -> dict[str, str | OSError | ValueError]:
    """What each tenant's pointer says, or why it cannot be read.

    BentoML's tools empty the file before they write it: empty ones are read again, all within `_POINTER_SECONDS`.
    """
    said: dict[str, str | OSError | ValueError] = {}
    deadline = time.monotonic() + _POINTER_SECONDS
    remaining = set(tenants)
    while True:
        for tenant_id in remaining:
            try:
                said[tenant_id] = storage.read_text(release_key(tenant_id, _POINTER)).strip()
            except (OSError, ValueError) as error:
                said[tenant_id] = error
        remaining = {tenant_id for tenant_id in remaining if said[tenant_id] == ""}
        if not remaining or time.monotonic() >= deadline:
            return said
        time.sleep(0.01)


def release_folder(home: Path, tenant_id: str, release: str) -> Path:
    """A local folder where the files of a release can be read."""
    return open_storage(home).local(release_key(tenant_id, release))


def prune(tenant_id: str, *, home: Path, keep: int = KEEP) -> list[str]:
    """Delete all but a tenant's `keep` newest complete releases. Returns the ids of the deleted ones.

    A server that has a deleted release loaded goes on serving it, since it holds all of it in memory.
    """
    storage, complete = open_storage(home), tenant_releases(home, tenant_id)
    storage.under(release_key(tenant_id)).finish_deletions()
    dropped = complete[keep:]
    for release in dropped:
        storage.delete(release_key(tenant_id, release))
    return dropped


def _store(home: Path) -> ModelStore:
    # A private class, because the public functions know one store only: that of BENTOML_HOME, read once a process.
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    (home / _MODELS).mkdir()
    return ModelStore(home / _MODELS)


def _next_moment(home: Path, tenant_id: str) -> datetime:
    """Now; where the clock went back, just after the newest release, so that the newest is always the largest."""
    now = datetime.now(UTC)
    newest = next(iter(tenant_releases(home, tenant_id)), None)
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
