"""Which family ranks better than which, told by the users who were asked of both."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import product

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from training.data.splits import Split
from training.evaluation.intervals import Estimate, Floats, paired_differences
from training.evaluation.segments import ALL, WARM
from training.models.contract import Ensemble
from training.train import EvaluatedModel

METRIC = "ndcg@10"
BASELINES = ("popularity", "item-knn")
SEGMENTS = (ALL, WARM)


class ComparisonVerdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


class PairedComparison(BaseModel):
    """How much more `one` reaches than `other` on the same questions; each interval holds 95 % for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    one: str
    other: str
    segment: str
    metric: str
    n_users: int
    difference: Estimate

    @property
    def verdict(self) -> ComparisonVerdict:
        """Undecided where the interval holds 0."""
        if self.difference.low is not None and self.difference.low > 0:
            return ComparisonVerdict.BETTER
        if self.difference.high is not None and self.difference.high < 0:
            return ComparisonVerdict.WORSE
        return ComparisonVerdict.UNDECIDED


def differences(split: Split, models: Sequence[EvaluatedModel], seed: int) -> list[PairedComparison]:
    """Every family against the baselines, and an ensemble against the best of its base models that were measured.

    Args:
        split: what all of them were measured on.
        models: in the order of the report; those without answers are left out.
        seed: of the bootstrap.
    """
    found: list[PairedComparison] = []
    gains = {model.family: model.answers.per_user[METRIC] for model in models if model.answers is not None}
    for segment, users in _askers(split):
        reached = {family: values[users] for family, values in gains.items()}
        pairs = list(_pairs(models, reached))
        estimates = paired_differences([(reached[one], reached[other]) for one, other in pairs], seed=seed)
        found += [
            PairedComparison(
                one=one, other=other, segment=segment, metric=METRIC, n_users=int(users.sum()), difference=estimate
            )
            for (one, other), estimate in zip(pairs, estimates, strict=True)
        ]
    return found


def _askers(split: Split) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The segments that are compared; warm users only where there are others beside them."""
    warm = split.test.histories.lengths > 0
    yield ALL, np.ones(len(warm), dtype=bool)
    if warm.any() and not warm.all():
        yield WARM, warm


def _pairs(models: Sequence[EvaluatedModel], reached: Mapping[str, Floats]) -> Iterator[tuple[str, str]]:
    """Who is held against whom: later baselines against earlier ones, all others against the baselines."""
    for model in models:
        if isinstance(model.evaluated, Ensemble):
            base_models = [name for name in model.evaluated.base_models if name in reached]
            if base_models and model.family in reached:
                yield model.family, max(base_models, key=lambda name: float(reached[name].mean()))
    baselines = [name for name in BASELINES if name in reached]
    for one, other in product(reached, baselines):
        if one not in baselines or baselines.index(one) > baselines.index(other):
            yield one, other
