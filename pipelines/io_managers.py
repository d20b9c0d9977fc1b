"""How assets pass values to each other: as small JSON documents, which name the files of arrays and models."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from configs.settings import PathSettings
from configs.storage import open_storage


def values_folder(paths: PathSettings) -> Path:
    """Where the values of all assets lie: `<asset>/<tenant>.json`."""
    return paths.dagster / "values"


def value_key(asset: Sequence[str], tenant_id: str) -> str:
    """The key of an asset's value in the storage of `values_folder`. asset: the path of its key."""
    return "/".join((*asset, f"{tenant_id}.json"))


class JsonIOManager(dg.ConfigurableIOManager):
    """One JSON file per asset and tenant, `<folder>/<asset>/<tenant>.json`. Never pickle."""

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Raises TypeError for a value that JSON cannot hold."""
        if obj is None:
            return  # the asset's result is what it wrote elsewhere
        open_storage(Path(self.folder)).put_text(_key(context), json.dumps(obj, indent=1, allow_nan=False))

    def load_input(self, context: dg.InputContext) -> Any:
        """Raises FileNotFoundError where the asset was never materialized for the tenant."""
        storage, key = open_storage(Path(self.folder)), _key(context)
        if not storage.exists(key):
            raise FileNotFoundError(f"{context.asset_key.to_user_string()} has no value yet: materialize it first")
        return json.loads(storage.read_text(key))


def _key(context: dg.InputContext | dg.OutputContext) -> str:
    return value_key(context.asset_key.path, context.asset_partition_key)
