"""Chooses how item-to-item weights are learned: the method, or sum of two, that ranks held-out events best.

No method is best everywhere. The regressions win on dense data. On sparse data, where few users have both items of a
pair, the shrunk cosines of neighbours often do. A sum of two is rarely worse than its parts. So a fit holds out the
last moment of a sample of users, learns each method from the rest, and takes what ranks those events best.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from training.data.dataset import MIN_REPEAT_SHARE, Dataset
from training.data.splits import Holdout
from training.models.coconsumption import prior_scores
from training.models.collaborative.methods import Learner, Method
from training.models.contract import FloatMatrix, RuntimeOptions
from training.models.held_out import HeldOutEvents, held_out_ndcg
from training.models.linear import Term
from training.models.profiles import build_profiles

if TYPE_CHECKING:
    from training.models.collaborative.model import CollaborativeConfig

HALF_LIVES = (5.0, 20.0, 50.0, 200.0)
REPEAT_WEIGHTS = (0.1, 0.5, 2.0, 10.0)
SHARES = (0.2, 0.4, 0.6, 0.8)
"""Shares of the first of two methods in a sum, where the best scores of both are equally high."""


class MethodChoice(BaseModel):
    """What was chosen, and how well each candidate ranked the events held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[Method, ...]
    queries: int
    ndcg: dict[str, float]  # NDCG@10 of each candidate by its label

    @property
    def label(self) -> str:
        """What was chosen, in words."""
        return _label(self.methods)

    def best_of_each_name(self) -> dict[str, float]:
        """NDCG@10 of the best candidate of each method alone, by the method's name."""
        alone = [(label.partition(" ")[0], figure) for label, figure in self.ndcg.items() if " + " not in label]
        return {name: max(figure for other, figure in alone if other == name) for name, _ in alone}


@dataclass(frozen=True)
class _Figures:
    """How one method ranks the held-out events."""

    ndcg: float
    height: float  # of the best score of a query, on average


def choose_methods(
    dataset: Dataset, config: "CollaborativeConfig", options: RuntimeOptions, methods: Sequence[Method]
) -> MethodChoice | None:
    """The best of these methods, each with the best half-life and repeat weight, and of the sums of two of them.

    Args:
        dataset: what the model will be fitted on.
        config: the weight of the prior, the half-lives of the transitions, and the sizes.
        options: `seed` draws the users.
        methods: the same name may stand there with several ridges.

    Returns:
        None where too few events can be held out to tell.
    """
    held_out = HeldOutEvents.of(dataset, config.held_out_users, options.seed)
    if held_out is None:
        return None
    trial = _Trial(held_out, Learner(held_out.past, config, options), prior_scores(held_out.past, config.prior))
    best = trial.best_of_each_name([each for method in methods for each in _with_half_lives(method)])
    if dataset.repeat_share >= MIN_REPEAT_SHARE and held_out.mask != "all":
        best |= trial.best_of_each_name([each for method in best.values() for each in _with_repeat_weights(method)])
    sums = trial.sums(list(best.values()))
    ndcg = {_label([method]): figures.ndcg for method, figures in trial.measured.items()}
    found = [((method,), trial.measured[method].ndcg) for method in best.values()] + sums
    chosen, _ = max(found, key=lambda each: each[1])
    return MethodChoice(
        methods=chosen, queries=len(held_out.queries), ndcg=ndcg | {_label(each): figure for each, figure in sums}
    )


class _Trial:
    """Methods learned from the events that were not held out, and their scores of the queries."""

    def __init__(self, held_out: HeldOutEvents, learner: Learner, base: npt.NDArray[np.float32]) -> None:
        """base: float32 [n_items], the scores of an empty history."""
        self.measured: dict[Method, _Figures] = {}
        self._held_out, self._learner, self._base = held_out, learner, base
        self._terms: dict[Method, tuple[Term, ...]] = {}

    def best_of_each_name(self, methods: Sequence[Method]) -> dict[str, Method]:
        """Learn and measure the methods, and keep the best of each name. Name -> method."""
        self._learn([method for method in methods if method not in self._terms])
        self._measure([method for method in methods if method not in self.measured])
        best: dict[str, Method] = {}
        for method in methods:
            if method.name not in best or self.measured[method].ndcg > self.measured[best[method.name]].ndcg:
                best[method.name] = method
        return best

    def sums(self, methods: Sequence[Method]) -> list[tuple[tuple[Method, ...], float]]:
        """All sums of two measured methods with their NDCG."""
        pairs = [
            tuple(
                method.model_copy(update={"factor": float(f"{part / self.measured[method].height:.3g}")})
                for method, part in zip(pair, (share, 1 - share), strict=True)
            )
            for pair in combinations(methods, 2)
            for share in SHARES
            if all(self.measured[method].height > 0 for method in pair)
        ]
        gains = np.zeros(len(pairs))
        for part in self._held_out.parts():
            scores = {method.name: self._scores(method, part) for method in methods}
            for place, pair in enumerate(pairs):
                total = sum(np.float32(method.factor) * scores[method.name] for method in pair)
                gains[place] += held_out_ndcg(np.asarray(total, np.float32), part).sum()
        return list(zip(pairs, (gains / len(self._held_out.queries)).tolist(), strict=True))

    def _learn(self, methods: Sequence[Method]) -> None:
        """Methods that differ in half-lives and repeat weights alone share their kernels."""
        kernels = {
            method.learned: [term.kernel for term in terms if term.as_of is None]
            for method, terms in self._terms.items()
        }
        for method in methods:
            if method.learned not in kernels:
                kernels[method.learned] = self._learner.kernels(method)
            self._terms[method] = self._learner.weighed(method, kernels[method.learned])

    def _measure(self, methods: Sequence[Method]) -> None:
        gains, heights = np.zeros((2, len(methods)))
        for part in self._held_out.parts():
            for place, method in enumerate(methods):
                scores = self._scores(method, part)
                heights[place] += scores.max(axis=1).sum()
                gains[place] += held_out_ndcg(scores, part).sum()
        n = len(self._held_out.queries)
        self.measured |= {
            method: _Figures(gain / n, height / n)
            for method, gain, height in zip(methods, gains.tolist(), heights.tolist(), strict=True)
        }

    def _scores(self, method: Method, part: Holdout) -> FloatMatrix:
        """Scores of the queries, float32 [n, n_items]."""
        profiles = build_profiles(part.histories, len(self._base))
        scores = np.tile(self._base, (len(part), 1))
        for term in self._terms[method]:
            weighed = term.weigh(profiles)
            scores += term.kernel.propagate(weighed.where(weighed.weights > 0).matrix(len(self._base)))
        return scores


def _with_half_lives(method: Method) -> list[Method]:
    if method.name == "transitions":
        return [method]
    own = [] if method.half_life in HALF_LIVES else [method]
    return own + [method.model_copy(update={"half_life": half_life}) for half_life in HALF_LIVES]


def _with_repeat_weights(method: Method) -> list[Method]:
    if method.name == "transitions":  # they have weights of an item for itself
        return [method]
    return [method.model_copy(update={"repeat_weight": weight}) for weight in (method.repeat_weight, *REPEAT_WEIGHTS)]


def _label(methods: Sequence[Method]) -> str:
    if len(methods) == 1:
        return methods[0].label
    return " + ".join(f"{method.factor:g} x {method.label}" for method in methods)
