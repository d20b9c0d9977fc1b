"""Chooses the settings of the bilinear content model: those that rank held-out events best."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from training.data.dataset import Dataset
from training.models.coconsumption import prior_scores, training_matrix
from training.models.content_based.config import ContentBasedConfig
from training.models.content_based.map import ContentMoments, MapSettings
from training.models.contract import FloatMatrix
from training.models.held_out import HeldOutEvents, held_out_ndcg
from training.models.kernels import Factors
from training.models.profiles import build_profiles

GRID: dict[str, Sequence[float]] = {
    "half_life": (2.0, 5.0, 20.0, 50.0),
    "user_regularisation": (1.0, 10.0, 100.0, 1_000.0, 10_000.0),
    "item_regularisation": (0.1, 1.0, 10.0, 100.0),
    "own_weight": (0.0, 0.5, 1.0),
    "similarity_weight": (0.0, 0.2, 0.5, 1.0, 2.0, 5.0),
}
"""What is tried for each setting, one after the other, the others as they are best so far."""
ROUNDS = 2


class MapChoice(BaseModel):
    """The settings that were chosen, and what they reached."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: MapSettings
    queries: int
    ndcg: float  # NDCG@10
    configured_ndcg: float  # of the configuration's own settings

    def notes(self) -> dict[str, Any]:
        """For the tracking run."""
        figures = {"queries": self.queries, "ndcg": self.ndcg, "ndcg_configured": self.configured_ndcg}
        return {
            **{f"chosen_{name}": value for name, value in self.settings.model_dump().items() if value is not None},
            **{f"held_out_{name}": value for name, value in figures.items()},
        }


def choose_map(dataset: Dataset, features: FloatMatrix, config: ContentBasedConfig, seed: int) -> MapChoice | None:
    """The best settings on the last events of a sample of users; None where too few can be held out to tell.

    Args:
        dataset: what the model will be fitted on.
        features: of its items, float32 [n_items, d].
        config: its settings come first, and win ties.
        seed: draws the users.
    """
    held_out = HeldOutEvents.of(dataset, config.held_out_users, seed)
    if held_out is None:
        return None
    moments = ContentMoments.of(training_matrix(held_out.past), features)
    base = prior_scores(held_out.past, config.prior)
    start = MapSettings.of(config)
    figures: dict[MapSettings, float] = {}

    def measure(candidates: Sequence[MapSettings]) -> None:
        kernels = [Factors(features @ moments.map(each), features) for each in candidates]
        gains = np.zeros(len(candidates))
        for part in held_out.parts():
            profiles = build_profiles(part.histories, len(base))
            for place, (each, kernel) in enumerate(zip(candidates, kernels, strict=True)):
                read = profiles.decayed(each.half_life)
                scores = base + kernel.propagate(read.where(read.weights > 0).matrix(len(base)))
                gains[place] += held_out_ndcg(scores, part).sum()
        figures.update(zip(candidates, (gains / len(held_out.queries)).tolist(), strict=True))

    best = start
    for name, values in list(GRID.items()) * ROUNDS:
        near = [best, *(best.model_copy(update={name: value}) for value in values)]
        measure([each for each in dict.fromkeys(near) if each not in figures])
        best = max(near, key=lambda each: figures[each])
    return MapChoice(settings=best, queries=len(held_out.queries), ndcg=figures[best], configured_ndcg=figures[start])
