"""Events that a fit holds out of its own data, to choose between candidates."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from feature_store.interaction_types import SeenPolicy
from training.data.dataset import Dataset
from training.data.splits import Holdout, last_moments
from training.models.contract import FloatMatrix

CHOICE_FILE = "choice.json"
"""In the folder of a saved model: what its fit chose."""
MIN_QUERIES = 30
"""With fewer queries a choice would be luck."""
QUERY_CELLS = 60_000_000
"""Bound on queries times items, which decides what the scores of one candidate cost."""
SCORES_AT_ONCE = 8_000_000
TOP = 10


@dataclass(frozen=True)
class HeldOutEvents:
    """The last moment of a sample of users as queries, and the events before it."""

    past: Dataset
    queries: Holdout
    mask: SeenPolicy  # which seen items the queries leave out

    @classmethod
    def of(cls, dataset: Dataset, n_users: int, seed: int) -> Self | None:
        """None where too few events can be held out to choose by.

        The items are ranked that evaluations and requests rank (`Dataset.ranking_mask`).

        Args:
            dataset: what the model will be fitted on.
            n_users: the largest number of users; a large catalogue allows fewer (`QUERY_CELLS`).
            seed: draws the users.
        """
        if not len(dataset.interactions):
            return None
        mask = dataset.ranking_mask
        past, queries = last_moments(dataset, mask, min(n_users, QUERY_CELLS // dataset.n_items), seed)
        return cls(past, queries, mask) if len(queries) >= MIN_QUERIES else None

    def parts(self) -> Iterator[Holdout]:
        """The queries in parts whose scores may be held at once."""
        for rows in self.queries.batches(max(1, SCORES_AT_ONCE // self.past.n_items)):
            yield self.queries.take(rows)


def held_out_ndcg(scores: FloatMatrix, queries: Holdout) -> npt.NDArray[np.float64]:
    """NDCG@10 of each query, float64 [n]; items of one score share their mean rank.

    Args:
        scores: float32 [n, n_items]; those of masked items are overwritten.
        queries: with at least one target each.
    """
    masked, targets = queries.masked.tocoo(), queries.targets
    scores[masked.row, masked.col] = -np.inf
    wanted = np.diff(targets.indptr)
    gains = np.zeros(len(scores))
    for place in range(int(wanted.max(initial=0))):
        rows = np.flatnonzero(wanted > place)
        values = scores[rows, targets.indices[targets.indptr[rows] + place]][:, None]
        ranked = scores if len(rows) == len(scores) else scores[rows]
        above, equal = np.count_nonzero(ranked > values, axis=1), np.count_nonzero(ranked == values, axis=1)
        ranks = above + (equal + 1) / 2
        gains[rows] += np.where(ranks <= TOP, 1 / np.log2(ranks + 1), 0)
    ideal = np.cumsum(1 / np.log2(np.arange(2, TOP + 2)))
    found: npt.NDArray[np.float64] = gains / ideal[np.minimum(wanted, TOP) - 1]
    return found
