"""The listwise linear ranker: non-negative weights of features that rank what was chosen above what was not."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from training.evaluation.metrics import ndcg_of_lists

Doubles = npt.NDArray[np.float64]
CUTOFF = 10


@dataclass(frozen=True)
class Candidates:
    """Per question the items worth ranking, padded to one width."""

    items: npt.NDArray[np.int32]  # [Q, m] positions
    features: npt.NDArray[np.float32]  # [Q, m, n_features]
    chosen: npt.NDArray[np.bool_]  # [Q, m] the targets among them
    valid: npt.NDArray[np.bool_]  # [Q, m] False under padding
    n_targets: npt.NDArray[np.int64]  # [Q] targets, among the candidates or not
    shares: Doubles  # [Q] what each question counts, so that users count alike however many they give

    def __len__(self) -> int:
        return len(self.n_targets)

    def take(self, rows: npt.NDArray[np.bool_]) -> "Candidates":
        return Candidates(*(getattr(self, column.name)[rows] for column in fields(self)))


def fit_weights(candidates: Candidates, l2: float) -> Doubles:
    """Weights >= 0 that sum to 1, float64 [n_features], minimising the softmax cross-entropy of the chosen items.

    ListNet's top-one loss (Cao et al., 2007) with equal mass on the chosen items of a question; questions without any
    chosen candidate teach nothing. Convex, so the start does not matter. All zeros where no feature helps.
    """
    teaching: npt.NDArray[np.bool_] = np.any(candidates.chosen, axis=1)
    taught = candidates.take(teaching)
    n_features = candidates.features.shape[2]
    if not len(taught):
        return np.full(n_features, 1 / n_features)
    features = taught.features.astype(np.float64)
    shares = taught.shares / taught.shares.sum()
    mass = taught.chosen / taught.chosen.sum(axis=1, keepdims=True)

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        scores = np.where(taught.valid, features @ weights, -np.inf)
        top = scores.max(axis=1, keepdims=True)
        odds = np.exp(scores - top)
        total = odds.sum(axis=1, keepdims=True)
        picked = np.where(taught.chosen, scores - top - np.log(total), 0)
        value = -float(shares @ (mass * picked).sum(axis=1)) + l2 * float(weights @ weights)
        pull = shares[:, None] * (odds / total - mass)
        return value, np.einsum("qm,qmf->f", pull, features) + 2 * l2 * weights

    start = np.full(n_features, 0.1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * n_features)
    total = found.x.sum()
    return found.x / total if total > 0 else found.x


def mean_ndcg(candidates: Candidates, weights: Doubles) -> float:
    """The mean of `ndcg` over users."""
    return float(np.average(ndcg(candidates, weights), weights=candidates.shares))


def ndcg(candidates: Candidates, weights: Doubles) -> Doubles:
    """NDCG@10 of every question, float64 [Q]; a target that is no candidate counts as not found."""
    hits = np.take_along_axis(candidates.chosen, _best(candidates, weights), axis=1)
    return ndcg_of_lists(hits, candidates.n_targets, CUTOFF)


def breadth(candidates: Candidates, weights: Doubles) -> int:
    """Distinct items in the lists of ten of all questions together."""
    best = _best(candidates, weights)
    listed = np.take_along_axis(candidates.valid, best, axis=1)
    return len(np.unique(np.take_along_axis(candidates.items, best, axis=1)[listed]))


def _best(candidates: Candidates, weights: Doubles) -> npt.NDArray[np.int64]:
    """Places of the best ten candidates of each question, int64 [Q, <= 10]."""
    scores = np.where(candidates.valid, candidates.features @ weights.astype(np.float32), -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :CUTOFF]
