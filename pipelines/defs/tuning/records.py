"""When each family of a tenant was searched, as the values of the assets hold it. The values are in every backup."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from configs.settings import PathSettings
from configs.storage import open_storage
from pipelines.defs.training.families import asset_name, configuration_key
from pipelines.io_managers import value_key, values_folder


@dataclass(frozen=True)
class SearchRecord:
    """The value of an asset `configuration/<family>`. Times are RFC 3339 in UTC."""

    attempted_at: str  # end of the newest search
    completed_at: str | None  # end of the newest that was not stopped
    profile: dict[str, Any] = field(default_factory=dict)  # of the data of the newest that was not stopped
    run_id: str | None = None  # of the newest search in MLflow
    adopted: bool = False  # whether the newest found what trainings use from then on
    in_use: str | None = None  # run of the search whose configuration trainings use

    def value(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return asdict(self)

    @property
    def times(self) -> tuple[datetime, datetime | None]:
        """`attempted_at` and `completed_at`."""
        completed = None if self.completed_at is None else datetime.fromisoformat(self.completed_at)
        return datetime.fromisoformat(self.attempted_at), completed


def search_record(paths: PathSettings, tenant: str, family: str) -> SearchRecord | None:
    """The record of a family's searches; None where there was none."""
    value = _value(paths, configuration_key(family).path, tenant)
    return None if value is None else SearchRecord(**value)


def trained_value(paths: PathSettings, tenant: str, family: str) -> Mapping[str, Any] | None:
    """What the newest training of a family handed on; None where there was none."""
    return _value(paths, [asset_name(family)], tenant)


def snapshot_value(paths: PathSettings, tenant: str) -> Mapping[str, Any] | None:
    """What the newest feature snapshot is; None where there was none."""
    return _value(paths, ["feature_snapshot"], tenant)


def _value(paths: PathSettings, asset: Sequence[str], tenant: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(open_storage(values_folder(paths)).read_text(value_key(asset, tenant)))
    except FileNotFoundError:
        return None
    return value
