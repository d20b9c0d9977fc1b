"""The files of a release. A release is one BentoML model: an immutable folder of

```
release.json                  this manifest
items.parquet                 the item table (feature_store.schemas.SNAPSHOT_ITEMS), row i is position i
models/<family>-<version>/    saved models, each once however many ensembles use it
```
"""

from typing import NamedTuple

import msgspec

MANIFEST_FILE = "release.json"
ITEMS_FILE = "items.parquet"
MODELS_FOLDER = "models"
RELEASE_PREFIX = "release-"
"""Before a tenant's id, the name of the BentoML model whose versions are the tenant's releases."""


class BrokenReleaseError(Exception):
    """A release folder whose files do not fit its manifest, or whose models cannot answer."""


class StoreListing(NamedTuple):
    """What the release store holds at one moment."""

    releases: dict[str, list[str]]  # ids of the complete releases by tenant, newest first
    unreadable: dict[str, str] = {}  # noqa: RUF012 - never changed; reasons, by tenants whose folder cannot be read now


def release_key(tenant_id: str, release: str | None = None) -> str:
    """The key of a tenant's release in the storage at `PathSettings.bentoml`; None: of all its releases."""
    folder = f"models/{RELEASE_PREFIX}{tenant_id}"
    return folder if release is None else f"{folder}/{release}"


class SavedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of a release: its registry version, its folder, and the folders of the models that it combines."""

    version: str
    folder: str
    base_models: dict[str, str] = msgspec.field(default_factory=dict, name="components")  # family -> folder


class ReleaseManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `release.json`."""

    release: str
    tenant_id: str
    created_at: str  # RFC 3339, UTC
    catalogue_version: int  # of items.parquet
    families: dict[str, SavedModel]  # the models that answer queries, by family
    files: dict[str, int]  # size in bytes of every file by relative path, to detect an incomplete copy
    notes: dict[str, str] = {}
