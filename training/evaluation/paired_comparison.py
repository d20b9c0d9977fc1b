"""Paired comparisons: which family ranks better than which, judged on the queries that both were evaluated on."""

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


class ComparisonVerdict(StrEnum):
    """Which of two families is better, by the interval of their difference."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


class PairedComparison(BaseModel):
    """The metric of `one` minus that of `other` on the same queries. Each 95 % interval holds for itself alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    one: str
    other: str
    segment: str
    metric: str
    n_users: int
    difference: Estimate

    @property
    def verdict(self) -> ComparisonVerdict:
        """Undecided where the interval contains 0."""
        if self.difference.low is not None and self.difference.low > 0:
            return ComparisonVerdict.BETTER
        if self.difference.high is not None and self.difference.high < 0:
            return ComparisonVerdict.WORSE
        return ComparisonVerdict.UNDECIDED


def compare_families(split: Split, models: Sequence[EvaluatedModel], seed: int) -> list[PairedComparison]:
    """Every family against the baselines, and an ensemble against the best of its base models.

    Args:
        split: what all models were evaluated on.
        models: in the order of the report. Models without rankings are left out.
        seed: of the bootstrap.
    """
    comparisons: list[PairedComparison] = []
    per_query = {model.family: model.rankings.per_user[METRIC] for model in models if model.rankings is not None}
    for segment, users in _compared_segments(split):
        reached = {family: values[users] for family, values in per_query.items()}
        pairs = list(_pairs(models, reached))
        estimates = paired_differences([(reached[one], reached[other]) for one, other in pairs], seed=seed)
        comparisons += [
            PairedComparison(
                one=one, other=other, segment=segment, metric=METRIC, n_users=int(users.sum()), difference=estimate
            )
            for (one, other), estimate in zip(pairs, estimates, strict=True)
        ]
    return comparisons


def _compared_segments(split: Split) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The segments that are compared: all users, and warm users where there are cold ones too."""
    warm = split.test.histories.lengths > 0
    yield ALL, np.ones(len(warm), dtype=bool)
    if warm.any() and not warm.all():
        yield WARM, warm


def _pairs(models: Sequence[EvaluatedModel], reached: Mapping[str, Floats]) -> Iterator[tuple[str, str]]:
    """The compared pairs of families. A baseline is compared with the baselines that come before it in BASELINES."""
    for model in models:
        if isinstance(model.evaluated, Ensemble):
            base_models = [name for name in model.evaluated.base_models if name in reached]
            if base_models and model.family in reached:
                yield model.family, max(base_models, key=lambda name: float(reached[name].mean()))
    baselines = [name for name in BASELINES if name in reached]
    for one, other in product(reached, baselines):
        if one not in baselines or baselines.index(one) > baselines.index(other):
            yield one, other
