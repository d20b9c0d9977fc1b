"""The scoring of a hybrid: the scorings of its base models, weighted and summed."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from feature_store.online import Histories
from training.models.contract import FloatMatrix, Positions
from training.models.linear import LinearRecommender, LinearScoring
from training.models.lists import ListContributions
from training.models.profiles import build_profiles
from training.models.scoring import Scoring

if TYPE_CHECKING:
    from training.models.hybrid.model import Hybrid


class HybridScoring(Scoring):
    """One batch of histories. The linear base models share the profiles; each base model scores the batch once."""

    def __init__(self, hybrid: "Hybrid", histories: Histories) -> None:
        self._hybrid = hybrid
        self._profiles = build_profiles(histories, hybrid.n_items)
        sizes = self._profiles.sizes
        self._scorings: dict[str, Scoring] = {}
        self._factors: dict[str, npt.NDArray[np.float32]] = {}
        self.scores = np.zeros((len(histories), hybrid.n_items), dtype=np.float32)
        self._own = hybrid.own_scores
        self._own_factors = (sizes**hybrid.growth).astype(np.float32)
        if self._own is not None:
            np.multiply(self._own_factors[:, None], self._own, out=self.scores)
        for family, model in hybrid.used_base_models.items():
            scoring = self._scorings[family] = (
                LinearScoring(model, self._profiles)
                if isinstance(model, LinearRecommender)
                else model.scoring(histories)
            )
            factors = self._factors[family] = hybrid.factors(family, sizes)
            weighted = scoring.scores - np.float32(hybrid.scales[family].center)
            weighted *= factors[:, None]
            if hybrid.is_cold_start_model(family):
                weighted *= hybrid.cold_items
            self.scores += weighted

    def component_scores(self, items: Positions) -> dict[str, FloatMatrix]:
        rows = np.arange(len(items))[:, None]
        found = {}
        for family, scoring in self._scorings.items():
            scores = scoring.scores[rows, items] - np.float32(self._hybrid.scales[family].center)
            scores *= self._factors[family][:, None]
            if self._hybrid.is_cold_start_model(family):
                scores *= self._hybrid.cold_items[items]
            found[family] = scores
        if self._own is not None:
            found[self._hybrid.family] = self._own_factors[:, None] * self._own[items]
        return found

    def contributions(self, items: Positions) -> list[ListContributions]:
        """The weighted contributions of the base models in `explained_by`."""
        profiles, hybrid = self._profiles, self._hybrid
        values = np.zeros((len(profiles.items), items.shape[1]), dtype=np.float32)
        for family in hybrid.explained_by:
            scoring = self._scorings.get(family)
            if scoring is None:  # a weight of zero
                continue
            found = (
                scoring.values(items)
                if isinstance(scoring, LinearScoring)
                else profiles.tabulated(list(scoring.contributions(items)), items.shape[1])
            )
            if hybrid.is_cold_start_model(family):
                found = found * hybrid.cold_items[items][profiles.rows]
            values += self._factors[family][profiles.rows, None] * found
        return profiles.contributions(values)
