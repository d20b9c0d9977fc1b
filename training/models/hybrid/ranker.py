"""The listwise linear ranker: non-negative feature weights that rank the targets of queries above other items."""

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from training.evaluation.metrics import ndcg_of_lists
from training.evaluation.rankings import LIST_LENGTH
from training.models.contract import Doubles


@dataclass(frozen=True)
class Candidates:
    """The m best items of each of q queries, padded to one width."""

    items: npt.NDArray[np.int32]  # [q, m] positions
    features: npt.NDArray[np.float32]  # [q, m, n_features]
    chosen: npt.NDArray[np.bool_]  # [q, m] True where the item is a target
    valid: npt.NDArray[np.bool_]  # [q, m] False under padding
    n_targets: npt.NDArray[np.int64]  # [q] targets of the query, candidates or not
    query_weights: Doubles  # [q] so that users weigh the same, however many queries each has

    def __len__(self) -> int:
        return len(self.n_targets)

    def take(self, rows: npt.NDArray[np.bool_]) -> "Candidates":
        """The candidates of the queries under this mask, bool [q]."""
        return Candidates(*(getattr(self, column.name)[rows] for column in fields(self)))

    def only(self, used: npt.NDArray[np.bool_]) -> "Candidates":
        """The same candidates with the features under this mask, bool [n_features]."""
        return self if used.all() else replace(self, features=self.features[:, :, used])


def fit_weights(candidates: Candidates, l2: float) -> Doubles:
    """Weights >= 0 that sum to 1, float64 [n_features], minimising the softmax cross-entropy of the targets.

    This is ListNet's top-one loss (Cao et al., 2007) with equal mass on the targets of a query. Queries without a
    target among their candidates are left out. The loss is convex, so the starting point does not matter. All weights
    are zero where no feature helps.
    """
    informative: npt.NDArray[np.bool_] = np.any(candidates.chosen, axis=1)
    training = candidates.take(informative)
    n_features = candidates.features.shape[2]
    if not len(training):
        return np.full(n_features, 1 / n_features)
    features = training.features.astype(np.float64)
    weights_of = training.query_weights / training.query_weights.sum()
    mass = training.chosen / training.chosen.sum(axis=1, keepdims=True)

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        scores = np.where(training.valid, features @ weights, -np.inf)
        top = scores.max(axis=1, keepdims=True)
        odds = np.exp(scores - top)
        total = odds.sum(axis=1, keepdims=True)
        log_chance = np.where(training.chosen, scores - top - np.log(total), 0)
        value = -float(weights_of @ (mass * log_chance).sum(axis=1)) + l2 * float(weights @ weights)
        residual = weights_of[:, None] * (odds / total - mass)
        return value, np.einsum("qm,qmf->f", residual, features) + 2 * l2 * weights

    start = np.full(n_features, 0.1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * n_features)
    total = found.x.sum()
    return found.x / total if total > 0 else found.x


def mean_ndcg(candidates: Candidates, weights: Doubles) -> float:
    """The mean of `ndcg_of_queries` over users."""
    return float(np.average(ndcg_of_queries(candidates, weights), weights=candidates.query_weights))


def ndcg_of_queries(candidates: Candidates, weights: Doubles) -> Doubles:
    """NDCG@10 of every query, float64 [q]; a target that is no candidate counts as not found."""
    hits = np.take_along_axis(candidates.chosen, _best(candidates, weights), axis=1)
    return ndcg_of_lists(hits, candidates.n_targets, LIST_LENGTH)


def aggregate_diversity(candidates: Candidates, weights: Doubles) -> int:
    """Distinct items in the top ten of all queries together."""
    best = _best(candidates, weights)
    listed = np.take_along_axis(candidates.valid, best, axis=1)
    return len(np.unique(np.take_along_axis(candidates.items, best, axis=1)[listed]))


def _best(candidates: Candidates, weights: Doubles) -> npt.NDArray[np.int64]:
    """Places of the best ten candidates of each query, int64 [q, <= 10]."""
    scores = np.where(candidates.valid, candidates.features @ weights.astype(np.float32), -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :LIST_LENGTH]
