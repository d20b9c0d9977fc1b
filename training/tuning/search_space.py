"""Search spaces: which values of a family's configuration are tried, from `configs/search/<family>.yaml`."""

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from training.models.contract import ModelConfig

if TYPE_CHECKING:
    from optuna import Trial

Value = int | float | str | bool | None


class _Option(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Choice(_Option):
    """One of these."""

    choices: tuple[Value, ...] = Field(min_length=1)

    def suggest(self, trial: "Trial", path: str) -> Value:
        return self.choices[trial.suggest_categorical(path, range(len(self.choices)))]

    def place(self, value: Any) -> Value:
        """What stands for the value in a trial."""
        return self.choices.index(value)

    def holds(self, value: Any) -> bool:
        return value in self.choices


class Range(_Option):
    """From low to high, both included; whole numbers where both are whole; log: as likely per doubling."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("a range needs low < high, and 0 < low where log is set")
        return self

    def suggest(self, trial: "Trial", path: str) -> Value:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(path, self.low, self.high, log=self.log)
        return trial.suggest_float(path, self.low, self.high, log=self.log)

    def place(self, value: Any) -> Value:
        """What stands for the value in a trial: itself."""
        found: Value = value
        return found

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class SearchSpace(RootModel[dict[str, Choice | Range]]):
    """Options by key of the configuration; dots lead into what is nested: `encoder.text_weight`."""

    def suggest(self, trial: "Trial", base: ModelConfig) -> ModelConfig:
        """`base` with a value from every option. Raises ValidationError for a key that it does not have."""
        values = base.model_dump()
        for path, option in self.root.items():
            _put(values, path, option.suggest(trial, path))
        return type(base).model_validate(values)

    def place(self, config: ModelConfig) -> dict[str, Value]:
        """Where a configuration lies in the space; what lies outside of it is left out.

        Raises ValueError for a key that the configuration does not have.
        """
        values = config.model_dump()
        found = {path: _get(values, path) for path in self.root}
        return {path: self.root[path].place(value) for path, value in found.items() if self.root[path].holds(value)}


def load_space(family: str) -> SearchSpace:
    """Raises ValueError for a family that is not tuned."""
    path = files("configs") / "search" / f"{family}.yaml"
    if not path.is_file():
        raise ValueError(f"{family} has no search space: write configs/search/{family}.yaml")
    return SearchSpace.model_validate(yaml.safe_load(path.read_text()))


def _get(values: Mapping[str, Any], path: str) -> Any:
    first, _, rest = path.partition(".")
    if first not in values:
        raise ValueError(f"a search space names {first!r}, which the configuration does not have")
    return _get(values[first], rest) if rest else values[first]


def _put(values: dict[str, Any], path: str, value: Value) -> None:
    first, _, rest = path.partition(".")
    if rest:
        _put(values[first], rest, value)
    else:
        values[first] = value
