"""How the ranker's weights are learned, and between which alternatives is chosen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from feature_store.online import Histories
from training.data.splits import Holdout
from training.evaluation.intervals import Estimate
from training.models.contract import Doubles, FloatMatrix, ModelConfig
from training.models.hybrid.ranker import (
    Candidates,
    aggregate_diversity,
    fit_weights,
    mean_ndcg,
    ndcg_of_queries,
)
from training.models.hybrid.selection import HeldOut, HybridChoice, RankerOption, choose_components

Features = Callable[[Histories], FloatMatrix]
"""Histories to float32 [batch, n_items, n_base_models + 1]: comparable scores of the base models, then popularity."""
ROWS_AT_ONCE = 64
Entry = TypeVar("Entry", bound=np.generic)


class RankerConfig(ModelConfig):
    """How the weights are learned, and which alternatives are tried."""

    candidates: int = Field(
        default=100, ge=10, description="best items of each base model that the ranker is trained on"
    )
    popularity_weights: tuple[float, ...] = Field(
        default=(0.0, 0.15, 0.3, 0.5),
        min_length=1,
        description="weights of popularity to try; the weights of the base models sum to 1",
    )
    diversity_powers: tuple[float, ...] = Field(
        default=(0.0, 0.25, 0.5),
        min_length=1,
        validation_alias=AliasChoices("diversity_powers", "breadth_powers"),
        description="powers to try; weights are multiplied by this power of a base model's aggregate diversity",
    )
    tolerance: float = Field(
        default=0.005, ge=0, description="share of the best ensemble's NDCG that may be lost for more diverse lists"
    )
    l2: float = Field(default=1e-3, ge=0, description="ridge on the weights")
    prior_users: float = Field(
        default=500.0,
        ge=0,
        description="number of users at which the weights are half way between the prior and the learned ones",
    )
    prior_power: float = Field(
        default=4.0,
        ge=0,
        description="the prior weights are proportional to this power of the NDCG of each base model alone",
    )
    folds: int = Field(default=5, ge=2, description="folds of the cross-validation over users")


class LearnedRanker(BaseModel):
    """The outcome of a fit. Weights of base models sum to 1; NDCG@10 is a mean over users held out from the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: dict[str, float]
    popularity_weight: float
    kept_base_model: str | None = Field(validation_alias=AliasChoices("kept_base_model", "kept_component"))
    choice: str = ""  # which components it has and why, in words; empty in files of earlier versions
    n_queries: int = Field(validation_alias=AliasChoices("n_queries", "n_questions"))
    ndcg: float  # of what was chosen, cross-validated over users
    base_model_ndcg: dict[str, float] = Field(validation_alias=AliasChoices("base_model_ndcg", "component_ndcg"))
    gain: Estimate
    """In NDCG of the best ensemble over the best base model, paired by user, whichever of them was chosen."""
    aggregate_diversity: int = Field(validation_alias=AliasChoices("aggregate_diversity", "breadth"))
    """Distinct items in the lists of ten of what was chosen."""
    base_model_diversity: dict[str, int] = Field(
        validation_alias=AliasChoices("base_model_diversity", "component_breadth")
    )


def learn_ranker(
    families: Sequence[str],
    features: Features,
    queries: Holdout,
    config: RankerConfig,
    rng: np.random.Generator,
) -> LearnedRanker:
    """The weights that rank the users' choices best, or the best base model alone (`selection.choose_components`).

    Args:
        families: of the base models, in the order of `features`.
        features: inputs of the ranker.
        queries: later than all events that the base models know; there may be none.
        config: alternatives to try.
        rng: draws the folds.
    """
    if not len(queries):  # such as where users chose again what they may not be recommended again
        return _without_queries(families, config)
    candidates = _gather(features, queries, config.candidates)
    base_models = _with_popularity(candidates, 0.0)
    singles = [_single(base_models, place, 0.0) for place in range(len(families))]
    users, user = np.unique(queries.users, return_inverse=True)
    if len(users) < config.folds:  # too few users to hold any out, so nothing separates the base models
        even = np.full(len(families), 1 / len(families))
        in_lists = aggregate_diversity(base_models, even)
        chosen = RankerOption(even, min(config.popularity_weights), np.zeros(len(queries)), 0.0, in_lists)
        choice = HybridChoice(
            chosen, Estimate(mean=0.0), f"equal weights, because {len(users)} users tell nothing apart"
        )
        singles = [replace(single, ndcg=0.0) for single in singles]
    else:
        fold = rng.permutation(len(users))[user] % config.folds
        ensembles = _ensembles(candidates, base_models, singles, fold, config)
        choice = choose_components(
            families, singles, ensembles, HeldOut(user, fold, candidates.query_weights), config.tolerance
        )
    chosen = choice.option
    single = chosen.popularity_weight == 0 and chosen.weights.max() == 1
    return LearnedRanker(
        weights=dict(zip(families, chosen.weights.tolist(), strict=True)),
        popularity_weight=chosen.popularity_weight,
        kept_base_model=families[int(chosen.weights.argmax())] if single else None,
        choice=choice.reason,
        n_queries=len(queries),
        ndcg=chosen.ndcg,
        base_model_ndcg={family: one.ndcg for family, one in zip(families, singles, strict=True)},
        gain=choice.gain,
        aggregate_diversity=chosen.diversity,
        base_model_diversity={family: one.diversity for family, one in zip(families, singles, strict=True)},
    )


def _without_queries(families: Sequence[str], config: RankerConfig) -> LearnedRanker:
    unknown = dict.fromkeys(families, 0.0)
    return LearnedRanker(
        weights=dict.fromkeys(families, 1 / len(families)),
        popularity_weight=min(config.popularity_weights),
        kept_base_model=None,
        choice="equal weights, because no user tells anything apart",
        n_queries=0,
        ndcg=0.0,
        base_model_ndcg=unknown,
        gain=Estimate(mean=0.0),
        aggregate_diversity=0,
        base_model_diversity=dict.fromkeys(families, 0),
    )


def _ensembles(
    candidates: Candidates,
    base_models: Candidates,
    singles: Sequence[RankerOption],
    fold: npt.NDArray[np.int64],
    config: RankerConfig,
) -> list[RankerOption]:
    """The ensembles to choose from, each measured on users that were held out from its weights.

    They are all base models with each weight of popularity; the same without the base model of the least weight, and so
    on down to two; and each base model alone with popularity.
    """
    n = len(singles)
    diversity = np.array([single.diversity for single in singles], dtype=np.float64)
    found: list[RankerOption] = []
    for weight in config.popularity_weights:
        with_popularity = _with_popularity(candidates, weight)
        found += _options(with_popularity, base_models, weight, diversity, fold, config, np.ones(n, dtype=bool))
        if weight > 0:
            found += [_single(with_popularity, place, weight) for place in range(n) if singles[place].ndcg > 0]
    used = np.ones(n, dtype=bool)
    best = max(found, key=lambda option: option.ndcg, default=None)
    while best is not None and used.sum() > 2:
        weights, weight = best.weights, best.popularity_weight
        weakest = min(np.flatnonzero(used).tolist(), key=lambda place: (weights[place], singles[place].ndcg))
        used[weakest] = False
        with_popularity = _with_popularity(candidates, weight)
        smaller = list(_options(with_popularity, base_models, weight, diversity, fold, config, used.copy()))
        found += smaller
        best = max(smaller, key=lambda option: option.ndcg, default=None)
    return found


def _single(candidates: Candidates, place: int, popularity_weight: float) -> RankerOption:
    """One base model, with the popularity that `candidates` hold. Its weight is not learned, so no fold is held out."""
    weights = np.eye(candidates.features.shape[2])[place]
    query_ndcg = ndcg_of_queries(candidates, weights)
    mean = float(np.average(query_ndcg, weights=candidates.query_weights)) if len(candidates) else 0.0
    return RankerOption(weights, popularity_weight, query_ndcg, mean, aggregate_diversity(candidates, weights))


def _options(
    candidates: Candidates,
    base_models: Candidates,
    popularity_weight: float,
    diversity: Doubles,
    fold: npt.NDArray[np.int64],
    config: RankerConfig,
    used: npt.NDArray[np.bool_],
) -> Iterator[RankerOption]:
    """The options with one weight of popularity. used: bool [n_base_models], which base models have a weight."""

    def fitted(rows: npt.NDArray[np.bool_]) -> Doubles:
        training, alone = candidates.take(rows).only(used), base_models.take(rows).only(used)
        weights = np.zeros(len(used))
        weights[used] = _towards_prior(fit_weights(training, config.l2), alone, config)
        return weights

    whole = fitted(fold >= 0)
    if not whole.any():
        return
    folds = [(fold == held, fitted(fold != held)) for held in np.unique(fold)]
    for power in config.diversity_powers:
        factors = (diversity / diversity.max()) ** power
        query_ndcg = np.empty(len(candidates))
        for held, weights in folds:
            query_ndcg[held] = ndcg_of_queries(candidates.take(held), weights * factors)
        scaled = whole * factors / (whole * factors).sum()
        mean = float(np.average(query_ndcg, weights=candidates.query_weights))
        yield RankerOption(scaled, popularity_weight, query_ndcg, mean, aggregate_diversity(candidates, scaled))


def _towards_prior(weights: Doubles, base_models: Candidates, config: RankerConfig) -> Doubles:
    """The weights shrunk towards their prior. The fewer users they were learned from, the nearer to the prior.

    Few users suffice to measure the NDCG of each base model alone, but not what it adds to the others. Combinations of
    forecasts are better when shrunk towards such a prior (Diebold and Pauly, 1990).
    """
    prior = np.array([mean_ndcg(base_models, alone) for alone in np.eye(len(weights))]) ** config.prior_power
    if not prior.any():
        return weights
    users = base_models.query_weights.sum()
    share = users / (users + config.prior_users)
    return share * weights + (1 - share) * prior / prior.sum()


def _with_popularity(candidates: Candidates, weight: float) -> Candidates:
    """The scores of the base models, each plus `weight` times popularity: weights that sum to 1 keep that weight."""
    features = candidates.features[:, :, :-1] + np.float32(weight) * candidates.features[:, :, -1:]
    return replace(candidates, features=features)


def _gather(features: Features, queries: Holdout, width: int) -> Candidates:
    """For each query the union of the `width` best unmasked items of every feature."""
    n_items = queries.targets.shape[1]
    width = min(width, n_items)
    blocks = []
    for start in range(0, len(queries), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(queries)))
        values = features(queries.histories.take(rows))
        masked = queries.masked[rows].toarray()
        listed = np.zeros(masked.shape, dtype=bool)
        for feature in range(values.shape[2]):
            scores = np.where(masked, -np.inf, values[:, :, feature])
            np.put_along_axis(listed, np.argpartition(-scores, width - 1, axis=1)[:, :width], True, axis=1)
        listed &= ~masked
        order = np.argsort(~listed, axis=1, kind="stable")[:, : max(1, int(listed.sum(axis=1).max()))]
        blocks.append(
            (
                order.astype(np.int32),
                np.take_along_axis(values, order[:, :, None], axis=1),
                np.take_along_axis(queries.targets[rows].toarray() & listed, order, axis=1),
                np.take_along_axis(listed, order, axis=1),
            )
        )
    widest = max((items.shape[1] for items, *_ in blocks), default=0)
    return Candidates(
        _stack([items for items, _, _, _ in blocks], widest),
        _stack([values for _, values, _, _ in blocks], widest),
        _stack([chosen for _, _, chosen, _ in blocks], widest),
        _stack([valid for _, _, _, valid in blocks], widest),
        np.diff(queries.targets.indptr).astype(np.int64),
        1 / np.bincount(queries.users)[queries.users],
    )


def _stack(blocks: list[npt.NDArray[Entry]], width: int) -> npt.NDArray[Entry]:
    """Blocks [b, m, ...] concatenated along the first axis, padded with zeros to `width` along the second."""
    padded = []
    for block in blocks:
        padding = [(0, 0)] * block.ndim
        padding[1] = (0, width - block.shape[1])
        padded.append(np.pad(block, padding))
    return np.concatenate(padded)
