"""How the ranker's weights are learned, and when a single component is kept instead."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from feature_store.online import Histories
from training.data.splits import Holdout
from training.evaluation.intervals import Estimate, paired_difference
from training.models.contract import FloatMatrix, ModelConfig
from training.models.hybrid.ranker import Candidates, Doubles, breadth, fit_weights, mean_ndcg, ndcg

Features = Callable[[Histories], FloatMatrix]
"""Histories to float32 [batch, n_items, n_components + 1]: comparable scores of the components, then popularity."""
ROWS_AT_ONCE = 64
Entry = TypeVar("Entry", bound=np.generic)


class RankerConfig(ModelConfig):
    """How the weights are learned, and what is tried."""

    candidates: int = Field(default=100, ge=10, description="best items of each component that are ranked")
    popularity_weights: tuple[float, ...] = Field(
        default=(0.0, 0.15, 0.3, 0.5),
        min_length=1,
        description="tried weights of popularity beside a total of 1 for the components",
    )
    breadth_powers: tuple[float, ...] = Field(
        default=(0.0, 0.25, 0.5),
        min_length=1,
        description="tried powers of a component's breadth (distinct items in its lists) that its weight is raised by",
    )
    tolerance: float = Field(default=0.005, ge=0, description="share of the best NDCG given up for broader lists")
    l2: float = Field(default=1e-3, ge=0, description="ridge on the weights")
    prior_users: float = Field(
        default=500.0, ge=0, description="users that it takes to move the weights half of the way from their prior"
    )
    prior_power: float = Field(
        default=4.0, ge=0, description="weights are expected to follow this power of what components reach alone"
    )
    folds: int = Field(default=5, ge=2, description="of the cross-validation over users")


class Learned(BaseModel):
    """The outcome of a fit. Weights of components sum to 1; NDCG@10 is a mean over users the weights had not seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: dict[str, float]
    popularity_weight: float
    kept_base_model: str | None = Field(validation_alias=AliasChoices("kept_base_model", "kept_component"))
    n_questions: int
    ndcg: float  # of the blend, cross-validated over users
    base_model_ndcg: dict[str, float] = Field(validation_alias=AliasChoices("base_model_ndcg", "component_ndcg"))
    gain: Estimate  # of the blend over the best component in NDCG, paired by user; 0 where that is kept
    breadth: int  # distinct items in the blend's lists of ten
    component_breadth: dict[str, int]


@dataclass(frozen=True)
class _Option:
    weights: Doubles
    popularity_weight: float
    figures: Doubles  # NDCG of every question
    ndcg: float
    breadth: int


def learn(
    families: Sequence[str],
    features: Features,
    questions: Holdout,
    config: RankerConfig,
    rng: np.random.Generator,
) -> Learned:
    """Weights that rank what users chose; those of the best component alone where no blend beats it.

    Of all blends that beat the best component and come within `config.tolerance` of the best blend, the one whose
    lists cover most of the catalogue is taken: between equals, what all users get says less about one of them.

    Args:
        families: names of the components, in the order of `features`.
        features: what the ranker sees.
        questions: later than everything the components know.
        config: what is tried.
        rng: draws the folds.
    """
    candidates = _gather(features, questions, config.candidates)
    base_models = _with_popularity(candidates, 0.0)
    one_hot = np.eye(len(families))
    breadths = np.array([breadth(base_models, weights) for weights in one_hot])
    people, person = np.unique(questions.users, return_inverse=True)
    if len(people) < config.folds:  # too few to hold anybody out: nothing tells the components apart
        even = np.full(len(families), 1 / len(families))
        figures = np.zeros(len(questions))
        chosen = kept = _Option(even, min(config.popularity_weights), figures, 0.0, breadth(base_models, even))
        alone = np.zeros(len(families))
    else:
        fold = rng.permutation(len(people))[person] % config.folds
        alone = np.array([mean_ndcg(base_models, weights) for weights in one_hot])
        best = int(alone.argmax())
        options = [
            option
            for weight in config.popularity_weights
            for option in _try(_with_popularity(candidates, weight), base_models, weight, breadths, fold, config)
        ]
        enough = max((option.ndcg for option in options), default=0.0) * (1 - config.tolerance)
        winning = [option for option in options if option.ndcg >= enough and option.ndcg > alone[best]]
        figures = ndcg(base_models, one_hot[best])
        kept = _Option(one_hot[best], 0.0, figures, float(alone[best]), int(breadths[best]))
        chosen = max(winning, key=lambda option: (option.breadth, option.ndcg), default=kept)
    by_user = [np.bincount(person, option.figures * candidates.shares).astype(np.float64) for option in (chosen, kept)]
    single = chosen.popularity_weight == 0 and chosen.weights.max() == 1
    return Learned(
        weights=dict(zip(families, chosen.weights.tolist(), strict=True)),
        popularity_weight=chosen.popularity_weight,
        kept_base_model=families[int(chosen.weights.argmax())] if single else None,
        n_questions=len(questions),
        ndcg=chosen.ndcg,
        base_model_ndcg=dict(zip(families, alone.tolist(), strict=True)),
        gain=paired_difference(by_user[0], by_user[1]) if len(people) else Estimate(mean=0.0),
        breadth=chosen.breadth,
        component_breadth=dict(zip(families, breadths.tolist(), strict=True)),
    )


def _try(
    candidates: Candidates,
    base_models: Candidates,
    popularity_weight: float,
    breadths: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int64],
    config: RankerConfig,
) -> Iterator[_Option]:
    """The blends with one weight of popularity, each judged on users that its weights had not seen."""

    def fitted(rows: npt.NDArray[np.bool_]) -> Doubles:
        return _towards_prior(fit_weights(candidates.take(rows), config.l2), base_models.take(rows), config)

    parts = [(fold == held, fitted(fold != held)) for held in np.unique(fold)]
    whole = fitted(fold >= 0)
    if not whole.any():
        return
    for power in config.breadth_powers:
        lifts = (breadths / breadths.max()) ** power
        figures = np.empty(len(candidates))
        for held, weights in parts:
            figures[held] = ndcg(candidates.take(held), weights * lifts)
        lifted = whole * lifts / (whole * lifts).sum()
        mean = float(np.average(figures, weights=candidates.shares))
        yield _Option(lifted, popularity_weight, figures, mean, breadth(candidates, lifted))


def _towards_prior(weights: Doubles, base_models: Candidates, config: RankerConfig) -> Doubles:
    """The weights drawn to what is expected before any are learned, the more the fewer users they were learned from.

    What a component reaches alone is known sooner than what it adds to the others, and combinations of forecasts do
    better when drawn to such a start (Diebold and Pauly, 1990).
    """
    expected = np.array([mean_ndcg(base_models, alone) for alone in np.eye(len(weights))]) ** config.prior_power
    if not expected.any():
        return weights
    users = base_models.shares.sum()
    share = users / (users + config.prior_users)
    return share * weights + (1 - share) * expected / expected.sum()


def _with_popularity(candidates: Candidates, weight: float) -> Candidates:
    """Components only, each with its share of popularity, so that weights that sum to 1 carry `weight` of it."""
    features = candidates.features[:, :, :-1] + np.float32(weight) * candidates.features[:, :, -1:]
    return replace(candidates, features=features)


def _gather(features: Features, questions: Holdout, width: int) -> Candidates:
    """The union of every feature's `width` best items that are not masked, for each question."""
    n_items = questions.targets.shape[1]
    width = min(width, n_items)
    blocks = []
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
                order.astype(np.int32),
                np.take_along_axis(seen, order[:, :, None], axis=1),
                np.take_along_axis(questions.targets[rows].toarray() & listed, order, axis=1),
                np.take_along_axis(listed, order, axis=1),
            )
        )
    widest = max((items.shape[1] for items, *_ in blocks), default=0)
    return Candidates(
        _stack([items for items, _, _, _ in blocks], widest),
        _stack([seen for _, seen, _, _ in blocks], widest),
        _stack([chosen for _, _, chosen, _ in blocks], widest),
        _stack([valid for _, _, _, valid in blocks], widest),
        np.diff(questions.targets.indptr).astype(np.int64),
        1 / np.bincount(questions.users)[questions.users],
    )


def _stack(blocks: list[npt.NDArray[Entry]], width: int) -> npt.NDArray[Entry]:
    """Blocks [b, m, ...] below each other, padded with zeros to `width` along the second axis."""
    padded = []
    for block in blocks:
        padding = [(0, 0)] * block.ndim
        padding[1] = (0, width - block.shape[1])
        padded.append(np.pad(block, padding))
    return np.concatenate(padded)
