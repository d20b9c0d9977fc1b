"""Hyper-parameters in YAML files: the ones of the house in `configs/models`, and those of a folder."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml


def family_values(family: str) -> dict[str, Any]:
    """What `configs/models/<family>.yaml` sets; nothing where there is no such file, as for a plug-in."""
    return read_values(files("configs") / "models" / f"{family}.yaml")


def read_values(path: Traversable) -> dict[str, Any]:
    """The keys of a YAML file, empty where it does not exist. Raises ValueError where it holds no mapping."""
    if not path.is_file():
        return {}
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds no mapping of keys")
    return values
