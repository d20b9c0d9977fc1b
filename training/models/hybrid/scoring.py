"""The scoring of a hybrid: the scorings of its base models, weighted and summed."""

from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from feature_store.online import Histories
from training.models.contract import FloatMatrix, Positions, Recommender
from training.models.linear import BaseScoring, LinearRecommender, LinearScoring
from training.models.lists import ListContributions, reaching
from training.models.profiles import build_profiles
from training.models.scoring import Scoring

if TYPE_CHECKING:
    from training.models.hybrid.model import Hybrid


_MAX_SHARE = 0.1
"""Share of the catalogue above which products with all items are faster than with candidates."""
_ROUNDING = 1.001
"""Makes the bound on products larger than their rounding errors."""


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
            scoring = self._scorings[family] = self._scoring(model, histories)
            self._factors[family] = hybrid.factors(family, sizes)
            weighted = scoring.scores - np.float32(hybrid.scales[family].center)
            self.scores += self._weighted(family, weighted)

    def _scoring(self, model: Recommender, histories: Histories) -> Scoring:
        if BaseScoring.suits(model):
            return BaseScoring(cast(LinearRecommender, model), self._profiles)
        if isinstance(model, LinearRecommender):
            return LinearScoring(model, self._profiles)
        return model.scoring(histories)

    def complete(self, lengths: npt.NDArray[np.int64]) -> None:
        """Add the products that base models left out, where they can bring an item into a list.

        An item whose score is below that of the last of a list by more than twice the largest sum of products cannot
        enter it. So the lists are those of complete scores. Where too many items are left, all products are added.
        """
        left_out = {family: one for family, one in self._scorings.items() if isinstance(one, BaseScoring)}
        if not left_out:
            return
        slack = sum(self._factors[family] * scoring.largest for family, scoring in left_out.items())
        candidates = [
            reaching(scores, int(length), 2 * float(largest) * _ROUNDING)
            for scores, length, largest in zip(self.scores, lengths, slack, strict=True)
        ]
        if max((len(items) for items in candidates), default=0) > self.scores.shape[1] * _MAX_SHARE:
            for family, scoring in left_out.items():
                self.scores += self._weighted(family, scoring.all_products())
            return
        for row, items in enumerate(candidates):
            final = self.scores[row, items]
            for family, scoring in left_out.items():
                products = scoring.products(row, items) * self._factors[family][row]
                final += (
                    products * self._hybrid.cold_items[items] if self._hybrid.is_cold_start_model(family) else products
                )
            self.scores[row] = -np.inf
            self.scores[row, items] = final

    def _weighted(self, family: str, scores: FloatMatrix) -> FloatMatrix:
        """Scores of a base model times its weight, in place."""
        scores *= self._factors[family][:, None]
        if self._hybrid.is_cold_start_model(family):
            scores *= self._hybrid.cold_items
        return scores

    def component_scores(self, items: Positions) -> dict[str, FloatMatrix]:
        found = {}
        for family, scoring in self._scorings.items():
            scores = next(iter(scoring.component_scores(items).values()))
            scores = scores - np.float32(self._hybrid.scales[family].center)
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
