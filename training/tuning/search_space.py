"""Search spaces: the values that a study tries for each hyper-parameter, from `configs/search/<family>.yaml`."""

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from training.models.contract import ModelConfig

if TYPE_CHECKING:
    from optuna import Trial

Value = int | float | str | bool | None


class _Domain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Choice(_Domain):
    """A categorical hyper-parameter: one of these values."""

    choices: tuple[Value, ...] = Field(min_length=1)

    def suggest(self, trial: "Trial", path: str) -> Value:
        """One of the values, drawn by the trial's sampler. path: the name under which Optuna stores it."""
        return self.choices[trial.suggest_categorical(path, range(len(self.choices)))]

    def encode(self, value: Any) -> Value:
        """What Optuna stores for the value: its index among the choices."""
        return self.choices.index(value)

    def contains(self, value: Any) -> bool:
        """Whether the value is one of the choices."""
        return value in self.choices


class Range(_Domain):
    """A numerical hyper-parameter from low to high, both included.

    Whole numbers are drawn where both bounds are whole. With `log`, every doubling is equally likely.
    """

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("a range needs low < high, and 0 < low where log is set")
        return self

    def suggest(self, trial: "Trial", path: str) -> Value:
        """A number of the range, drawn by the trial's sampler. path: the name under which Optuna stores it."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(path, self.low, self.high, log=self.log)
        return trial.suggest_float(path, self.low, self.high, log=self.log)

    def encode(self, value: Any) -> Value:
        """What Optuna stores for the value: the value itself."""
        number: Value = value
        return number

    def contains(self, value: Any) -> bool:
        """Whether the value is a number within the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high


class SearchSpace(RootModel[dict[str, Choice | Range]]):
    """The domain of each searched hyper-parameter, by its dotted path in the configuration: `encoder.text_weight`."""

    def suggest(self, trial: "Trial", base: ModelConfig) -> ModelConfig:
        """`base` with a suggested value for every searched path. Raises ValidationError for a path that it lacks."""
        values = base.model_dump()
        for path, domain in self.root.items():
            _put(values, path, domain.suggest(trial, path))
        return type(base).model_validate(values)

    def encode(self, config: ModelConfig) -> dict[str, Value]:
        """The configuration's values as Optuna stores them, by path. A value outside of its domain is left out.

        Raises ValueError for a path that the configuration does not have.
        """
        values = config.model_dump()
        found = {path: _get(values, path) for path in self.root}
        return {path: self.root[path].encode(value) for path, value in found.items() if self.root[path].contains(value)}


def is_searchable(family: str) -> bool:
    """Whether the family has a search space. A plug-in has none, unless `configs/search` holds its file."""
    return (files("configs") / "search" / f"{family}.yaml").is_file()


def load_space(family: str) -> SearchSpace:
    """The search space of a family. Raises ValueError for a family without one."""
    path = files("configs") / "search" / f"{family}.yaml"
    if not path.is_file():
        raise ValueError(f"{family} has no search space: write configs/search/{family}.yaml")
    return SearchSpace.model_validate(yaml.safe_load(path.read_text()))


def load_anchors(family: str, default: ModelConfig) -> list[ModelConfig]:
    """The family's configurations that did best on earlier data sets, which a search tries first.

    `configs/search/anchors.yaml` holds the keys in which each differs from `default`, of which all others are taken.
    Empty for a family that the file does not name. Raises ValidationError for a key that the family does not know.
    """
    path = files("configs") / "search" / "anchors.yaml"
    listed: list[dict[str, Any]] = yaml.safe_load(path.read_text()).get(family, [])
    return [type(default).model_validate(_merged(default.model_dump(), changes)) for changes in listed]


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the changes, which may be nested."""
    found = dict(values)
    for name, value in changes.items():
        before = found.get(name)
        found[name] = _merged(before, value) if isinstance(value, Mapping) and isinstance(before, Mapping) else value
    return found


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
