"""Baseline: recent popularity, the same ranking for all users. Every other model must beat it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from feature_store import columns as c
from feature_store.online import Histories
from training.data.dataset import EVENTS_AT_ONCE, Dataset
from training.models.contract import FloatMatrix, ModelConfig, Positions, Recommender, RuntimeOptions
from training.models.lists import Contributions
from training.models.workload import LOOKUP, DataSizes, Workload

CONFIG_FILE = "popularity.json"
ARRAYS_FILE = "popularity.npz"


class PopularityConfig(ModelConfig):
    """The decay of popularity."""

    half_life_days: float = Field(default=14.0, gt=0, description="age at which an event counts half")


class Popularity(Recommender):
    """One ranking for all users: log2(1 + time-decayed event weights) of each item."""

    family = "popularity"
    Config = PopularityConfig
    config: PopularityConfig
    values: npt.NDArray[np.float32]  # [n_items]

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        self.values = decayed_popularity(dataset, self.config.half_life_days)
        return self

    @classmethod
    def workload(
        cls,
        sizes: DataSizes,
        config: PopularityConfig,
        refit: bool = False,
        base_models: Mapping[str, Workload] | None = None,
    ) -> Workload:
        return Workload(sizes.items, sizes.events * LOOKUP, 24.0 * sizes.events, sizes.items * 1e-9)

    @property
    def n_items(self) -> int:
        return len(self.values)

    def score(self, histories: Histories, candidates: Positions | None = None) -> FloatMatrix:
        if len(histories.items) and histories.items.max() >= self.n_items:
            raise IndexError(f"a history names an item outside the catalogue of {self.n_items}")
        values = self.values if candidates is None else self.values[candidates]
        return np.tile(values, (len(histories), 1))

    def item_vectors(self) -> FloatMatrix:
        """Zero vectors: popularity has no notion of similarity."""
        return np.zeros((self.n_items, 1), dtype=np.float32)

    def explain(self, histories: Histories, items: Positions) -> list[Contributions]:
        """Empty: these scores do not depend on the history."""
        return [Contributions(np.empty(0, np.int32), np.empty(0, np.float32)) for _ in items]

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        added = int((positions >= self.n_items).sum())
        if not added:
            return self
        model = type(self)(self.config)
        model.values = np.concatenate([self.values, np.full(added, self.values.min(), np.float32)])
        return model

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / CONFIG_FILE).write_text(json.dumps(self.config.model_dump(mode="json")))
        np.savez(path / ARRAYS_FILE, values=self.values)

    @classmethod
    def load(cls, path: Path) -> Self:
        model = cls(PopularityConfig.model_validate(json.loads((path / CONFIG_FILE).read_text())))
        with np.load(path / ARRAYS_FILE, allow_pickle=False) as arrays:
            model.values = arrays["values"]
        return model


def decayed_popularity(dataset: Dataset, half_life_days: float) -> npt.NDArray[np.float32]:
    """log2(1 + sum of event weights, each halved every `half_life_days` before the newest event), float32 [n_items].

    Raises ValueError where there are no interactions.
    """
    events = dataset.interactions
    if not len(events):
        raise ValueError("popularity cannot be learned without interactions: record some first")
    newest = events.timestamps.max()
    mass: npt.NDArray[np.float64] = np.zeros(dataset.n_items)
    for start in range(0, len(events), EVENTS_AT_ONCE):
        part = slice(start, start + EVENTS_AT_ONCE)
        age_days = (newest - events.timestamps[part]) / c.MICROS_PER_DAY
        decayed = events.weights[part] * 0.5 ** (age_days / half_life_days)
        if start:  # adds event by event, so that rounding does not depend on the parts
            np.add.at(mass, events.items[part], decayed)
        else:
            mass += np.bincount(events.items[part], decayed, dataset.n_items)
    return np.log2(1 + mass).astype(np.float32)
