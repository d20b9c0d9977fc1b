"""A configuration as a report stores it, and as today's code reads it back."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from training.models.contract import ModelConfig
from training.models.registry import family_class


class UnreadableConfig(BaseModel):
    """A stored configuration that today's code cannot build: a key was renamed, or the family is gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, Any]  # as they were stored, so that writing the report again loses nothing
    reason: str


def read_config(family: str, values: Mapping[str, Any]) -> ModelConfig | UnreadableConfig:
    """The family's configuration with these values, or why there is none.

    A failure is a value and no exception, because the rest of the report stays readable. Whoever needs the
    configuration has to handle both types: an unreadable one is not the same as none.
    """
    try:
        return family_class(family).Config.model_validate(dict(values))
    except KeyError:
        reason = f"the family {family!r} is not installed"
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        reason = f"today's code cannot read its configuration ({'; '.join(problems)})"
    return UnreadableConfig(values=dict(values), reason=reason)
