"""What a search for hyper-parameters found: the result of every trial, and of the study as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from training.evaluation.intervals import Estimate, Floats, paired_difference
from training.models.contract import ModelConfig

METRIC = "ndcg@10"
"""What a study maximises, as a mean over the queries of the validation window."""
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


def distinct(configs: Sequence[ModelConfig]) -> list[ModelConfig]:
    """The configurations in their order, each once. They are compared, since not all can be hashed."""
    found: list[ModelConfig] = []
    for config in configs:
        if config not in found:
            found.append(config)
    return found


@dataclass(frozen=True)
class TrialResult:
    """One configuration and how its trial ended."""

    number: int
    config: ModelConfig | None  # None: the suggested values do not make a valid configuration
    value: float | None  # METRIC; None where the trial did not complete
    curve: tuple[float, ...]  # the held-out figure after each step of the fit, where the family reports one
    state: str  # COMPLETE, PRUNED or FAILED
    reason: str  # empty for a complete trial
    seconds: float
    per_query: Floats | None = field(default=None, compare=False, repr=False)  # float64 [n_queries], METRIC of each
    share: float = 1.0  # of the users, on whose events it was fitted; values of different shares do not compare


@dataclass(frozen=True)
class StudyResult:
    """All trials, and the best of those that were fitted on the events of all users."""

    best: int  # number of the best trial
    config: ModelConfig  # of the best trial
    value: float  # METRIC of the best trial
    trials: tuple[TrialResult, ...]  # in order, so that a trial's number is its place
    base: int = 0  # number of the trial of the configuration that the search began with, on the events of all users
    stopped: bool = False  # the search was ended from outside, before its time

    @property
    def baseline(self) -> float | None:
        """METRIC of the configuration that the search began with; None where its trial did not complete."""
        return self.trials[self.base].value

    @property
    def improvement(self) -> Estimate | None:
        """How much more such a search finds than the base, paired by query; None where one of them did not complete.

        The best of many trials is partly luck on the queries that it is the best of. So the queries are cut in halves,
        and the best trial of each half is measured on the other one (cross-fitting).
        """
        first = self.trials[self.base].per_query
        if first is None or self.trials[self.best].per_query is None:
            return None
        return paired_difference(first if self.best == self.base else self._cross_fitted(), first)

    def _cross_fitted(self) -> Floats:
        """METRIC of each query under the trial that is the best on the half without it, float64 [n_queries]."""
        share = self.trials[self.base].share
        found = [each.per_query for each in self.trials if each.per_query is not None and each.share == share]
        figures = np.stack(found)  # [n_trials, n_queries]
        in_second = np.random.default_rng(0).permutation(figures.shape[1]) % 2 == 1
        best = [int(np.nansum(figures[:, half], axis=1).argmax()) for half in (in_second, ~in_second)]
        return np.where(in_second, figures[best[1]], figures[best[0]])

    @property
    def shown_better(self) -> bool:
        """Whether what was found is better than the base beyond the chance of which users there are."""
        low = None if self.improvement is None else self.improvement.low
        return low is not None and low > 0

    def promising(self, n: int) -> list[ModelConfig]:
        """The configurations of the n best trials, best first, each once; those of the largest share of users first."""
        found = [each for each in self.trials if each.value is not None and each.config is not None]
        found.sort(key=lambda each: (-each.share, -(each.value or 0.0), each.number))
        return distinct([each.config for each in found if each.config is not None])[:n]

    def summary(self) -> str:
        """What the search found, in one line."""
        if self.improvement is None:
            return "the configuration in use could not be measured, so no other is shown better"
        found = self.improvement
        compared = f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f}) {METRIC} on {len(self.trials)} trials"
        if self.best == self.base:
            return f"none of {len(self.trials)} trials reached more than the configuration in use"
        return f"{'better' if self.shown_better else 'not shown better'} than the configuration in use: {compared}"
