"""Scorings: the scores of one batch of histories, and what explaining their ranked lists needs of the same computation.

The model server scores a batch, cuts its lists, and then asks for the shares and the evidence of the listed items. A
`Scoring` holds what these three steps have in common: profiles, user vectors, activations. `Recommender.scoring` makes
one from the family's plain methods; a family with a faster way overrides it. The answers are the same, and the
contract tests compare them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from feature_store.online import Histories
from training.models.lists import ListContributions, strongest_sources

if TYPE_CHECKING:
    from training.models.contract import Recommender

FloatMatrix = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int32]


class Scoring(ABC):
    """One batch of histories, scored by one model."""

    scores: FloatMatrix
    """As `Recommender.score`, [batch, n_items]; the caller may overwrite it."""

    def complete(self, lengths: npt.NDArray[np.int64]) -> None:  # noqa: B027 - by default there is nothing to do
        """Make the scores of the best `lengths[row]` items of each row final, and those of no better items -inf.

        Called once the items that may not be listed have a score of -inf. A scoring that has left out what can change
        few scores adds it here, to those that it can bring into a list. By default all scores are final.
        """

    @abstractmethod
    def component_scores(self, items: Positions) -> dict[str, FloatMatrix]:
        """`Recommender.component_scores` of listed items, each float32 [batch, k]; what stands under NO_ITEM is any.

        items: int32 [batch, k], NO_ITEM allowed.
        """

    @abstractmethod
    def contributions(self, items: Positions) -> Sequence[ListContributions]:
        """As `Recommender.explain_lists`, one per row. items: int32 [batch, k], NO_ITEM allowed."""

    def evidence(self, items: Positions, top: int) -> Positions:
        """As `Recommender.evidence`, int32 [batch, k, top]. items: int32 [batch, k], NO_ITEM allowed."""
        return strongest_sources(self.contributions(items), items.shape, top)


class PlainScoring(Scoring):
    """The scoring of a family without a faster way."""

    def __init__(self, model: "Recommender", histories: Histories) -> None:
        self._model, self._histories = model, histories
        self._components = model.component_scores(histories)
        first, *others = self._components.values()
        self.scores = sum(others, start=first)

    def component_scores(self, items: Positions) -> dict[str, FloatMatrix]:
        rows = np.arange(len(items))[:, np.newaxis]
        return {family: scores[rows, items] for family, scores in self._components.items()}

    def contributions(self, items: Positions) -> Sequence[ListContributions]:
        return self._model.explain_lists(self._histories, items)

    def evidence(self, items: Positions, top: int) -> Positions:
        return self._model.evidence(self._histories, items, top)
