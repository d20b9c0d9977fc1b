"""How the ranker's weights are learned, and when a single component is kept instead."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from feature_store.online import Histories
from training.models.contract import FloatMatrix
from training.models.hybrid.questions import Questions
from training.models.hybrid.ranker import Candidates, fit_weights, ndcg

Features = Callable[[Histories], FloatMatrix]
"""Histories to float32 [batch, n_items, n_components + 1]: comparable scores of the components, then popularity."""
ROWS_AT_ONCE = 64
Entry = TypeVar("Entry", bound=np.generic)


class Learned(BaseModel):
    """The outcome of a fit. Weights of components sum to 1; NDCG@10 is of questions that its weights had not seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: dict[str, float]
    popularity_weight: float
    kept_component: str | None
    n_questions: int
    ndcg: float  # of the blend, cross-validated over users
    component_ndcg: dict[str, float]


def learn(
    families: Sequence[str],
    features: Features,
    questions: Questions,
    popularity_weights: Sequence[float],
    *,
    width: int,
    tolerance: float,
    l2: float,
    folds: int,
    rng: np.random.Generator,
) -> Learned:
    """Weights that rank what users chose; those of the best component alone where the blend does not beat it.

    Args:
        families: names of the components, in the order of `features`.
        features: what the ranker sees.
        questions: later than everything the components know.
        popularity_weights: weights of popularity to try; the smallest whose NDCG is within `tolerance` of the best is
            taken, because what all users get says little about one.
        width: best items of each feature that are ranked.
        tolerance: as a share of the best NDCG.
        l2: ridge on the weights.
        folds: of the cross-validation; no user is on both sides of one.
        rng: draws the folds.
    """
    candidates = _gather(features, questions, width)
    people, person = np.unique(questions.users, return_inverse=True)
    if len(people) < folds:  # too few to hold anybody out: nothing tells the components apart
        even = dict.fromkeys(families, 1 / len(families))
        return Learned(
            weights=even,
            popularity_weight=min(popularity_weights),
            kept_component=families[0] if len(families) == 1 else None,
            n_questions=len(questions),
            ndcg=0.0,
            component_ndcg=dict.fromkeys(families, 0.0),
        )
    fold = rng.permutation(len(people))[person] % folds
    alone = {
        family: float(ndcg(_with_popularity(candidates, 0.0), one_hot).mean())
        for family, one_hot in zip(families, np.eye(len(families)), strict=True)
    }
    tried = {
        weight: _cross_validate(_with_popularity(candidates, weight), fold, l2) for weight in sorted(popularity_weights)
    }
    enough = max(tried.values()) * (1 - tolerance)
    popularity_weight = next(weight for weight, figure in tried.items() if figure >= enough)
    weights = fit_weights(_with_popularity(candidates, popularity_weight), l2)
    best = max(families, key=lambda family: alone[family])
    wins = tried[popularity_weight] > alone[best] and weights.any()
    if not wins or (popularity_weight == 0 and weights.max() == 1):
        kept = best if not wins else families[int(weights.argmax())]
        weights, popularity_weight = (np.array(families) == kept).astype(np.float64), 0.0
    else:
        kept = None
    return Learned(
        weights=dict(zip(families, weights.tolist(), strict=True)),
        popularity_weight=popularity_weight,
        kept_component=kept,
        n_questions=len(questions),
        ndcg=tried[popularity_weight] if kept is None else alone[kept],
        component_ndcg=alone,
    )


def _cross_validate(candidates: Candidates, fold: npt.NDArray[np.int64], l2: float) -> float:
    figures = np.empty(len(candidates))
    for held in np.unique(fold):
        weights = fit_weights(candidates.take(fold != held), l2)
        figures[fold == held] = ndcg(candidates.take(fold == held), weights)
    return float(figures.mean())


def _with_popularity(candidates: Candidates, weight: float) -> Candidates:
    """Components only, each with its share of popularity, so that weights that sum to 1 carry `weight` of it."""
    features = candidates.features[:, :, :-1] + np.float32(weight) * candidates.features[:, :, -1:]
    return Candidates(features, candidates.chosen, candidates.valid, candidates.n_targets)


def _gather(features: Features, questions: Questions, width: int) -> Candidates:
    """The union of every feature's `width` best items that are not masked, for each question."""
    n_items = questions.targets.shape[1]
    width = min(width, n_items)
    blocks: list[tuple[FloatMatrix, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]] = []
    for start in range(0, len(questions), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(questions)))
        seen = features(questions.histories.take(rows))
        masked = questions.masked[rows].toarray()
        listed = np.zeros(masked.shape, dtype=bool)
        for feature in range(seen.shape[2]):
            scores = np.where(masked, -np.inf, seen[:, :, feature])
            np.put_along_axis(listed, np.argpartition(-scores, width - 1, axis=1)[:, :width], True, axis=1)
        listed &= ~masked
        order = np.argsort(~listed, axis=1, kind="stable")[:, : max(1, int(listed.sum(axis=1).max()))]
        blocks.append(
            (
                np.take_along_axis(seen, order[:, :, None], axis=1),
                np.take_along_axis(questions.targets[rows].toarray() & listed, order, axis=1),
                np.take_along_axis(listed, order, axis=1),
            )
        )
    widest = max((block[1].shape[1] for block in blocks), default=0)
    return Candidates(
        _stack([block[0] for block in blocks], widest),
        _stack([block[1] for block in blocks], widest),
        _stack([block[2] for block in blocks], widest),
        np.diff(questions.targets.indptr).astype(np.int64),
    )


def _stack(blocks: list[npt.NDArray[Entry]], width: int) -> npt.NDArray[Entry]:
    """Blocks [b, m, ...] below each other, padded with zeros to `width` along the second axis."""
    padded = []
    for block in blocks:
        padding = [(0, 0)] * block.ndim
        padding[1] = (0, width - block.shape[1])
        padded.append(np.pad(block, padding))
    return np.concatenate(padded)
