"""Hyper-parameters from `configs/models/<family>.yaml`, and the promotion rule's from `configs/promotion.yaml`."""

from importlib.resources import files
from typing import Any

import yaml

from training.models.contract import ModelConfig
from training.models.registry import family_class


def load_config(family: str, overrides: dict[str, Any] | None = None) -> ModelConfig:
    """The family's frozen configuration. A family without a file, as a plug-in may be, has its own defaults.

    Raises:
        KeyError: no such family.
        pydantic.ValidationError: a key that the family does not know, or a value out of range.
    """
    config_class = family_class(family).Config
    path = files("configs") / "models" / f"{family}.yaml"
    values = (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}
    return config_class.model_validate({**values, **(overrides or {})})
