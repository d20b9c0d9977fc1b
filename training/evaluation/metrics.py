"""Ranking metrics over the full catalogue, per user. Everything derives from the exact ranks of the targets.

Ranks are stable: by score descending, then item position ascending. For a user with P targets among N ranked items:

    ndcg@k     sum over targets with rank r <= k of 1 / log2(r + 1), over its largest possible value
               (Jaervelin and Kekaelaeinen, 2002, with binary gains)
    recall@k   targets with rank <= k, over P
    hit_rate@k 1 where any target has rank <= k
    mrr        1 / rank of the best target, at any depth (Voorhees, 1999)
    auc        probability that a target outranks another item, ties counted half; NaN where all items are targets

scikit-learn and torchmetrics do not compute these: they average NDCG over equal scores, take dense labels, and mask no
items. The tests compare every metric with theirs on rankings without ties.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float64]

CUTOFFS = {"ndcg": (10, 20), "recall": (10, 20), "hit_rate": (10,)}
METRICS = (*(f"{name}@{k}" for name, ks in CUTOFFS.items() for k in ks), "mrr", "auc")


@dataclass(frozen=True)
class TargetRanks:
    """The ranks of all targets of a batch of users in their full rankings."""

    rows: npt.NDArray[np.int64]  # [n_targets] the user of each target, ascending
    items: npt.NDArray[np.int64]  # [n_targets] positions
    ranks: npt.NDArray[np.int64]  # [n_targets] 1 is the best
    middle: Floats  # [n_targets] ranks with ties averaged, for AUC
    n_ranked: npt.NDArray[np.int64]  # [n_users] items in each ranking: the catalogue without the masked items

    def __len__(self) -> int:
        return len(self.n_ranked)

    @property
    def n_targets(self) -> npt.NDArray[np.int64]:
        """Targets of each user, [n_users]."""
        return np.bincount(self.rows, minlength=len(self)).astype(np.int64)

    def where(self, kept: npt.NDArray[np.bool_]) -> "TargetRanks":
        """Only the targets under this mask [n_targets]; ranks stay those among all items."""
        return TargetRanks(self.rows[kept], self.items[kept], self.ranks[kept], self.middle[kept], self.n_ranked)


def concatenate(parts: Sequence[TargetRanks]) -> TargetRanks:
    """The ranks of all batches as one, in order of the batches."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    return TargetRanks(
        np.concatenate([part.rows + start for part, start in zip(parts, starts[:-1], strict=True)]),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.ranks for part in parts]),
        np.concatenate([part.middle for part in parts]),
        np.concatenate([part.n_ranked for part in parts]),
    )


def target_ranks(scores: npt.NDArray[np.float32], targets: sp.csr_array, masked: sp.csr_array) -> TargetRanks:
    """Exact ranks of all targets.

    Args:
        scores: float32 [n_users, n_items], finite.
        targets: bool [n_users, n_items].
        masked: bool [n_users, n_items], disjoint from the targets; these items are not ranked.

    Raises:
        ValueError: a score is NaN or infinite, which no ranking can place.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    scores = scores.copy()
    mask = masked.tocoo()
    scores[mask.row, mask.col] = -np.inf
    coo = targets.tocoo()
    order = np.lexsort((coo.col, coo.row))
    rows, items = coo.row[order].astype(np.int64), coo.col[order].astype(np.int64)
    values = scores[rows, items]
    ascending = np.sort(scores, axis=1)
    above, equal = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    bounds = np.searchsorted(rows, np.arange(len(scores) + 1))
    for row, (start, end) in enumerate(pairwise(bounds)):
        found = values[start:end]
        above[start:end] = scores.shape[1] - np.searchsorted(ascending[row], found, side="right")
        equal[start:end] = scores.shape[1] - above[start:end] - np.searchsorted(ascending[row], found, side="left")
    ranks = above + 1
    for index in np.flatnonzero(equal > 1):  # only ties, which are rare, need the positions
        ranks[index] += np.count_nonzero(scores[rows[index], : items[index]] == values[index])
    n_ranked = scores.shape[1] - np.bincount(mask.row, minlength=len(scores))
    return TargetRanks(rows, items, ranks, above + (equal + 1) / 2, n_ranked.astype(np.int64))


def leave_out(
    found: TargetRanks, scores: npt.NDArray[np.float32], masked: sp.csr_array, left_out: sp.csr_array
) -> TargetRanks:
    """The ranks that the targets have where more items are left out of the ranking. Targets among those are dropped.

    Args:
        found: the result of `target_ranks` for these scores and masks.
        scores: float32 [n_users, n_items].
        masked: bool [n_users, n_items], as in `target_ranks`.
        left_out: bool [n_users, n_items], further items that are not ranked.
    """
    gone = [
        np.setdiff1d(left_out.indices[slice(*left_out.indptr[row : row + 2])], masked.indices[slice(*ends)])
        for row, ends in enumerate(pairwise(masked.indptr))
    ]
    kept = np.ones(len(found.rows), dtype=bool)
    above, equal, before = (np.zeros(len(found.rows), np.int64) for _ in range(3))
    bounds = np.searchsorted(found.rows, np.arange(len(found) + 1))
    for row, (start, end) in enumerate(pairwise(bounds)):
        items, others = found.items[start:end], gone[row]
        values, theirs = scores[row, items][:, None], scores[row, others][None]  # [n_targets, 1], [1, n_gone]
        kept[start:end] = ~np.isin(items, others)
        above[start:end] = np.count_nonzero(theirs > values, axis=1)
        ties = theirs == values
        equal[start:end] = np.count_nonzero(ties, axis=1)
        before[start:end] = np.count_nonzero(ties & (others < items[:, None]), axis=1)
    n_ranked = found.n_ranked - np.array([len(others) for others in gone], dtype=np.int64)
    return TargetRanks(
        found.rows, found.items, found.ranks - above - before, found.middle - above - equal / 2, n_ranked
    ).where(kept)


def per_user_metrics(found: TargetRanks) -> dict[str, Floats]:
    """Every metric of METRICS, float64 [n_users]; NaN for a user without targets."""
    n_users = len(found)
    n_targets = found.n_targets.astype(np.float64)
    absent = n_targets == 0
    some = np.where(absent, np.nan, n_targets)
    result: dict[str, Floats] = {f"ndcg@{k}": ndcg(found, k) for k in CUTOFFS["ndcg"]}
    for k in CUTOFFS["recall"]:
        result[f"recall@{k}"] = np.bincount(found.rows, found.ranks <= k, n_users) / some
    for k in CUTOFFS["hit_rate"]:
        hits = np.bincount(found.rows, found.ranks <= k, n_users) > 0
        result[f"hit_rate@{k}"] = np.where(absent, np.nan, hits)
    best = np.full(n_users, np.inf)
    np.minimum.at(best, found.rows, found.ranks)
    result["mrr"] = np.where(absent, np.nan, 1 / best)
    below = np.bincount(found.rows, found.n_ranked[found.rows] - found.middle, n_users) - some * (some - 1) / 2
    pairs = some * (found.n_ranked - n_targets)
    result["auc"] = np.divide(below, pairs, out=np.full(n_users, np.nan), where=pairs > 0)
    return result


def ndcg(found: TargetRanks, k: int | None = None) -> Floats:
    """NDCG@k of every user, float64 [n_users]; NaN for a user without targets. k None: over the whole ranking."""
    gains = 1 / np.log2(found.ranks + 1)
    if k is not None:
        gains = np.where(found.ranks <= k, gains, 0.0)
    return np.bincount(found.rows, gains, len(found)) / ideal_dcg(found.n_targets, k)


def ndcg_of_lists(hits: npt.NDArray[np.bool_], n_targets: npt.NDArray[np.int64], k: int) -> Floats:
    """NDCG@k of lists whose hits are known, float64 [n_users]; NaN for a user without targets.

    Args:
        hits: bool [n_users, <= k], whether the item at each place of the list is a target.
        n_targets: int64 [n_users], targets of each user, in the list or not.
        k: length of a full list.
    """
    return np.asarray(hits @ _discounts(hits.shape[1]) / ideal_dcg(n_targets, k))


def ideal_dcg(n_targets: npt.NDArray[np.int64], k: int | None = None) -> Floats:
    """The largest possible DCG@k, float64 [n]; NaN for 0 targets. n_targets: int64 [n]; k None: without a cutoff."""
    largest = int(n_targets.max(initial=0)) if k is None else k
    cumulative = np.concatenate(([np.nan], np.cumsum(_discounts(largest))))
    return cumulative[np.minimum(n_targets, largest)]


def random_ndcg(n_ranked: npt.NDArray[np.int64], n_targets: npt.NDArray[np.int64], k: int) -> Floats:
    """The expected NDCG@k of a random order, float64 [n_users]: each place holds a target with probability P / N.

    n_ranked, n_targets: int64 [n_users], N and P of each user.
    """
    cumulative = np.concatenate(([0.0], np.cumsum(_discounts(k))))
    gains = cumulative[np.minimum(n_ranked, k)] * n_targets / n_ranked
    return gains / ideal_dcg(n_targets, k)


def _discounts(n: int) -> Floats:
    """What a target at each of the first n ranks adds to DCG: 1 / log2(rank + 1), float64 [n]."""
    return 1 / np.log2(np.arange(2, n + 2))


def random_recall(n_ranked: npt.NDArray[np.int64], k: int) -> Floats:
    """The expected recall@k of a random order, float64 [n_users]. n_ranked: int64 [n_users]."""
    return np.minimum(n_ranked, k) / n_ranked
