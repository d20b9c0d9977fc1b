"""The files of feature snapshots, and how to read them.

    <features>/tenant=<t>/<snapshot id>/{manifest.json, items.parquet, and the parts that the manifest names}

The parts are the events (SNAPSHOT_INTERACTIONS), one part after the other in the order of users. No user is in two.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from configs.storage import open_storage
from feature_store.lake import tenant_folder

SNAPSHOT_ITEMS_FILE = "items.parquet"
SNAPSHOT_MANIFEST_FILE = "manifest.json"
ONLY_PART = "interactions.parquet"
"""The name of the part where there is only one. Manifests of earlier versions name no part and mean this file."""


@dataclass(frozen=True)
class SnapshotManifest:
    """Describes a snapshot. Timestamps are RFC 3339 in UTC, and None where there is no event."""

    snapshot_id: str
    tenant_id: str
    positions_id: str  # where two are equal, one item table is a prefix of the other
    catalogue_version: int
    n_users: int
    n_items: int
    n_interactions: int
    first_timestamp: str | None
    last_timestamp: str | None
    created_at: str  # when it was last built
    parts: tuple[str, ...] = (ONLY_PART,)  # names of the files of events, in the order of users

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The manifest among values that were read from JSON, also of an earlier version. Ignores other values."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**known | {"parts": _parts_of(values)})


def snapshot_folder(features: Path, tenant_id: str, snapshot_id: str) -> Path:
    """A local folder where a snapshot can be read now. Raises ValueError for a text that is no tenant id."""
    return open_storage(tenant_folder(features, tenant_id)).local(snapshot_id)


def read_snapshot_manifest(folder: Path) -> SnapshotManifest:
    """The manifest of the snapshot in `folder`. Raises FileNotFoundError without one."""
    return SnapshotManifest.of(_manifest_values(folder))


def snapshot_parts(folder: Path) -> list[Path]:
    """The files with the events of the snapshot in `folder`, in the order of users.

    Raises FileNotFoundError without a manifest.
    """
    return [folder / name for name in _parts_of(_manifest_values(folder))]


def _manifest_values(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / SNAPSHOT_MANIFEST_FILE).read_text(encoding="utf-8")))


def _parts_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(manifest.get("parts", (ONLY_PART,)))
