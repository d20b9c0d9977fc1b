"""What a search for hyper-parameters found: the result of every trial, and of the study as a whole."""

from dataclasses import dataclass, field

from training.evaluation.intervals import Estimate, Floats, paired_difference
from training.models.contract import ModelConfig

METRIC = "ndcg@10"
"""What a study maximises, as a mean over the queries of the validation window."""
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


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


@dataclass(frozen=True)
class StudyResult:
    """All trials, and the best of them."""

    best: int  # number of the best trial
    config: ModelConfig  # of the best trial
    value: float  # METRIC of the best trial
    trials: tuple[TrialResult, ...]  # in order; the first is the configuration that the search began with

    @property
    def baseline(self) -> float | None:
        """METRIC of the configuration that the search began with; None where its trial did not complete."""
        return self.trials[0].value

    @property
    def improvement(self) -> Estimate | None:
        """How much more the best trial reaches than the first, paired by query; None where the first did not complete.

        The best of many trials is partly luck, so an interval that barely excludes 0 says little.
        """
        first, best = self.trials[0].per_query, self.trials[self.best].per_query
        return None if first is None or best is None else paired_difference(best, first)
