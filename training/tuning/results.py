"""What a search for hyper-parameters tried, and what it found."""

from dataclasses import dataclass, field

from training.evaluation.intervals import Estimate, Floats, paired_difference
from training.models.contract import ModelConfig

METRIC = "ndcg@10"
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class TrialResult:
    """One configuration and how it ended."""

    number: int
    config: ModelConfig | None  # None: the values do not make a configuration
    value: float | None  # mean of METRIC over the questions of the validation window; None where it was not reached
    curve: tuple[float, ...]  # what the fit reported on the way
    state: str  # COMPLETE, PRUNED or FAILED
    reason: str
    seconds: float
    figures: Floats | None = field(default=None, compare=False, repr=False)  # METRIC of each question


@dataclass(frozen=True)
class StudyResult:
    best: int  # the number of the trial that won
    config: ModelConfig  # its configuration
    value: float  # what it reached
    tried: tuple[TrialResult, ...]  # in order; the first is what the search began with

    @property
    def started_from(self) -> float | None:
        """What the configuration that the search began with reached."""
        return self.tried[0].value

    @property
    def gain(self) -> Estimate | None:
        """How much more the winner reaches than the start, paired by question.

        The best of many trials is lucky too: an interval that barely leaves 0 out says little. None where the start
        did not come to its end.
        """
        start, best = self.tried[0].figures, self.tried[self.best].figures
        return None if start is None or best is None else paired_difference(best, start)
