"""The tenant's newest snapshot, and which interactions it holds."""

import json
from dataclasses import dataclass

from configs.storage import open_storage
from feature_store.lake import Cursor
from pipelines.io_managers import values_folder
from pipelines.resources import Installation


@dataclass(frozen=True)
class BuiltSnapshot:
    """A snapshot, and the lake's cursor when it was built: later interactions are not in it."""

    snapshot_id: str
    cursor: Cursor


def newest_snapshot(installation: Installation, tenant_id: str) -> BuiltSnapshot | None:
    """What the asset `feature_snapshot` built last; None where it never did, or by a version that kept no cursor."""
    values, key = open_storage(values_folder(installation.paths)), f"feature_snapshot/{tenant_id}.json"
    found = json.loads(values.read_text(key)) if values.exists(key) else {}
    return BuiltSnapshot(found["snapshot_id"], Cursor(**found["lake_cursor"])) if "lake_cursor" in found else None
