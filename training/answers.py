"""What a model answers to the questions of a hold-out: the ranks of all targets, and the lists it would recommend."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from training.intervals import Estimate, Floats, paired_difference
from training.metrics import TargetRanks, concatenate, per_user_metrics, target_ranks
from training.models.contract import Positions, Recommender, top_k
from training.splits import Holdout

LISTED = 10
"""Length of the lists that are recommended."""
Tick = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


@dataclass(frozen=True)
class Answers:
    """Row i is the answer to question i of the hold-out."""

    ranks: TargetRanks
    top: Positions  # int32 [n_users, <= LISTED]
    seconds: float  # of scoring, masking and cutting the lists, which is what `Recommender.recommend` does

    @cached_property
    def per_user(self) -> dict[str, Floats]:
        """Every metric of `metrics.METRICS`, float64 [n_users]."""
        return per_user_metrics(self.ranks)


def answer(model: Recommender, holdout: Holdout, batch_users: int = 256, tick: Tick | None = None) -> Answers:
    """Rank the whole catalogue for every question, of which there must be one.

    Args:
        model: scores the items of the hold-out.
        holdout: questions, targets and masks.
        batch_users: users scored at once; bounds memory to a few matrices of [batch_users, n_items].
        tick: told of the progress.

    Raises:
        ValueError: no question, or a score that is not finite.
    """
    parts, lists, seconds = [], [], 0.0
    for start in range(0, len(holdout), batch_users):
        batch = holdout.take(np.arange(start, min(start + batch_users, len(holdout))))
        masked = batch.masked.toarray()
        began = time.perf_counter()
        scores = model.score(batch.histories)
        lists.append(top_k(np.where(masked, -np.inf, scores), LISTED).items)
        seconds += time.perf_counter() - began
        parts.append(target_ranks(scores, batch.targets, batch.masked))
        if tick is not None:
            tick(start + len(batch), len(holdout))
    if not parts:
        raise ValueError("there is no question to answer")
    return Answers(concatenate(parts), np.concatenate(lists), seconds)


def compare(
    one: Recommender | Answers,
    other: Recommender | Answers,
    holdout: Holdout,
    metric: str = "ndcg@10",
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """The paired difference of a metric between two models on the same questions: `one` less `other`.

    Args:
        one, other: models, or what they answered to this hold-out before.
        holdout: the questions; a part of them (`holdout.take`) compares on that part where models are given.
        metric: a name of `metrics.METRICS`.
        n_resamples, seed: of the bootstrap.

    Raises:
        ValueError: answers to other questions, or nobody with the metric.
    """
    values = []
    for each in (one, other):
        found = each if isinstance(each, Answers) else answer(each, holdout)
        if len(found.ranks) != len(holdout):
            raise ValueError(f"{len(found.ranks)} answers do not belong to {len(holdout)} questions")
        values.append(found.per_user[metric])
    return paired_difference(values[0], values[1], n_resamples, seed)
