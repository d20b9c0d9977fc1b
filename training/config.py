"""Hyper-parameters from `configs/models/<family>.yaml`."""

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from training.models.contract import ModelConfig
from training.models.registry import family_class


def load_config(family: str, overrides: Mapping[str, Any] | None = None, folder: Path | None = None) -> ModelConfig:
    """The family's configuration. A family without a file, such as a plug-in, has the defaults of its class.

    Args:
        family: its name.
        overrides: keys that win over every file.
        folder: holds `<family>.yaml` files whose keys win over those of `configs/models`.

    Raises:
        KeyError: no such family.
        pydantic.ValidationError: a key that the family does not know, or a value out of range.
        ValueError: a file that is no mapping.
    """
    config_class = family_class(family).Config
    values = _read(files("configs") / "models" / f"{family}.yaml")
    if folder is not None:
        values |= _read(folder / f"{family}.yaml")
    return config_class.model_validate({**values, **(overrides or {})})


def _read(path: Traversable) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds no mapping of keys")
    return values
