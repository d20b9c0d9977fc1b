"""From scores to ranked lists: items that are not allowed, the top k, and diversity."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.models.contract import FloatMatrix, Mask, Positions
from training.models.lists import NO_ITEM, Ranking, top_k

POOL_FACTOR = 10
MIN_POOL = 100
"""Diversity chooses among the best max(MIN_POOL, POOL_FACTOR * k) items."""


def mask_scores(scores: FloatMatrix, allowed: list[Mask | None], excluded: list[list[int]]) -> FloatMatrix:
    """Set the score of every item that may not be in its row's list to -inf, in place. Returns `scores`.

    scores: float32 [batch, n]; allowed: per row a bool [n], True where an item may be in the list, or None where all
    may; excluded: per row, positions that may not.
    """
    for row, (mask, positions) in enumerate(zip(allowed, excluded, strict=True)):
        if mask is not None:
            scores[row, ~mask] = -np.inf
        if positions:
            scores[row, positions] = -np.inf
    return scores


@dataclass(frozen=True)
class Diversity:
    """The inputs of a diverse choice (see `diversify`) for a batch of rows."""

    weights: npt.NDArray[np.float64]  # [batch] in [0, 1], 0 where a row is ranked by score alone
    relevance: Callable[[FloatMatrix], npt.NDArray[np.float64]]  # the model's map of raw scores to [0, 1]
    vectors: Callable[[], FloatMatrix]  # unit item vectors, float32 [n, d]; called only where a weight is above 0

    def pools(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many of the best items each row's list is chosen from, int64 [batch]."""
        return np.where(self.weights > 0, np.maximum(counts * POOL_FACTOR, MIN_POOL), counts)

    def choose(self, row: int | np.int64, candidates: Positions, raw: FloatMatrix, k: int) -> npt.NDArray[np.int64]:
        """Indices into `candidates` of the k items chosen for this row, ascending.

        candidates: positions, best first; raw: their raw scores.
        """
        return diversify(self.relevance(raw), self.vectors()[candidates], k, float(self.weights[row]))


def rank(scores: FloatMatrix, counts: npt.NDArray[np.int64], diversity: Diversity | None = None) -> Ranking:
    """The ranked list of each row, best first, cut to the row's count and padded with NO_ITEM / -inf.

    With diversity, a row's items are chosen by maximal marginal relevance and then sorted by score.

    scores: float32 [batch, n], -inf for an item that may not be in the list; counts: int64 [batch].
    """
    pools = counts if diversity is None else diversity.pools(counts)
    pool = top_k(scores, int(pools.max(initial=0)))
    k = min(int(counts.max(initial=0)), pool.items.shape[1])
    items, values = pool.items[:, :k].copy(), pool.scores[:, :k].copy()
    if diversity is not None:
        for row in np.flatnonzero(diversity.weights):
            size = int(np.isfinite(pool.scores[row, : pools[row]]).sum())
            candidates, raw = pool.items[row, :size], pool.scores[row, :size]
            length = min(int(counts[row]), size)
            chosen = diversity.choose(row, candidates, raw, length)
            items[row, :length] = candidates[chosen]
            values[row, :length] = raw[chosen]
    beyond = np.arange(k) >= counts[:, np.newaxis]
    items[beyond] = NO_ITEM
    values[beyond] = -np.inf
    return Ranking(items, values)


def diversify(
    relevance: npt.NDArray[np.float64], vectors: FloatMatrix, k: int, diversity: float
) -> npt.NDArray[np.int64]:
    """Maximal marginal relevance: indices of the k chosen candidates, ascending, so in the candidates' order.

    Each step takes the candidate with the largest (1 - diversity) * relevance - diversity * (largest cosine to a
    candidate that was taken before). Carbonell and Goldstein, "The use of MMR, diversity-based reranking" (SIGIR 1998).

    relevance: float64 [pool] in [0, 1], best first; vectors: unit or zero, float32 [pool, d]; k <= pool.
    """
    alike = np.zeros(len(relevance))
    taken = np.zeros(len(relevance), dtype=bool)
    for step in range(k):
        gain = (1 - diversity) * relevance - diversity * alike
        gain[taken] = -np.inf
        best = int(np.argmax(gain))
        taken[best] = True
        cosines = vectors @ vectors[best]
        alike = cosines.astype(np.float64) if step == 0 else np.maximum(alike, cosines)
    return np.flatnonzero(taken)


def cosine_scores(vectors: FloatMatrix, items: Positions) -> FloatMatrix:
    """Cosines of each of `items` to every item, float32 [batch, n]; -inf for the item itself and where not above 0.

    vectors: unit or zero, float32 [n, d]; items: int32 [batch].
    """
    cosines = vectors[items] @ vectors.T
    cosines[np.arange(len(items)), items] = -np.inf
    cosines[cosines <= 0] = -np.inf
    return cosines
