"""What a search for hyper-parameters tried, and what it found."""

from dataclasses import dataclass

from training.models.contract import ModelConfig

METRIC = "ndcg@10"
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class Tried:
    """One configuration and how it ended."""

    number: int
    config: ModelConfig | None  # None: the values do not make a configuration
    value: float | None  # mean of METRIC over the questions of the validation window; None where it was not reached
    curve: tuple[float, ...]  # what the fit reported on the way
    state: str  # COMPLETE, PRUNED or FAILED
    reason: str
    seconds: float


@dataclass(frozen=True)
class Tuned:
    config: ModelConfig
    value: float
    started_from: float | None  # what the configuration that the search began with reached
    tried: tuple[Tried, ...]
