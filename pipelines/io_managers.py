"""What assets hand to each other: small JSON documents. Arrays and models stay in files that these documents name."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from configs.files import write_text


class JsonFiles(dg.ConfigurableIOManager):
    """One JSON file per asset and tenant, `<folder>/<asset>/<tenant>.json`. Never pickle."""

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Raises TypeError for a value that JSON cannot hold."""
        if obj is None:
            return  # an asset whose result is what it wrote elsewhere
        text = json.dumps(obj, indent=1, allow_nan=False)
        write_text(self._path(context), text)

    def load_input(self, context: dg.InputContext) -> Any:
        path = self._path(context)
        if not path.exists():
            raise FileNotFoundError(f"{context.asset_key.to_user_string()} has no value yet: materialize it first")
        return json.loads(path.read_text())

    def _path(self, context: dg.InputContext | dg.OutputContext) -> Path:
        return Path(self.folder).joinpath(*context.asset_key.path, f"{context.asset_partition_key}.json")
