"""The hyper-parameters of a fit: the defaults of the family for the data, then files, then explicit keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import AliasChoices

from training.data.profile import DataProfile
from training.models.contract import ModelConfig
from training.models.default_values import family_values, read_values
from training.models.registry import family_class


def config_for(
    family: str, profile: DataProfile, overrides: Mapping[str, Any] | None = None, folder: Path | None = None
) -> ModelConfig:
    """The configuration for a fit on data of this profile. Every training that nobody configured uses it.

    Args:
        family: its name.
        profile: of the events that the first fit learns from, so that no later event decides anything.
        overrides: keys that win over everything else.
        folder: holds `<family>.yaml` files whose keys win over the family's defaults for the data.

    Raises:
        KeyError: no such family.
        pydantic.ValidationError: a key that the family does not know, or a value out of range.
        ValueError: a file that is no mapping.
    """
    found = family_class(family)
    given = {**({} if folder is None else read_values(folder / f"{family}.yaml")), **(overrides or {})}
    defaults = found.default_config(profile)
    if not given:
        return defaults
    return found.Config.model_validate({**defaults.model_dump(), **_present_keys(found.Config, given)})


def load_config(family: str, overrides: Mapping[str, Any] | None = None, folder: Path | None = None) -> ModelConfig:
    """The configuration in `configs/models/<family>.yaml`, where no data are known. Other families have class defaults.

    Args, Raises: as `config_for`.
    """
    values = family_values(family)
    if folder is not None:
        values |= read_values(folder / f"{family}.yaml")
    return family_class(family).Config.model_validate({**values, **(overrides or {})})


def _present_keys(config: type[ModelConfig], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by the present names of their keys, since files may hold earlier names."""
    present = {
        alias: name
        for name, field in config.model_fields.items()
        if isinstance(field.validation_alias, AliasChoices)
        for alias in field.validation_alias.choices
    }
    return {present.get(key, key): value for key, value in values.items()}
