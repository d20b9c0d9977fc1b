"""What a model answers to the questions of a hold-out: the ranks of all targets, and the lists it would recommend."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from training.data.splits import Holdout, Split
from training.evaluation.intervals import Estimate, Floats, paired_difference
from training.evaluation.metrics import TargetRanks, concatenate, leave_out, per_user_metrics, target_ranks
from training.models.contract import Positions, Recommender, top_k

LIST_LENGTH = 10
"""Length of the lists that are recommended."""
ProgressCallback = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


@dataclass(frozen=True)
class RankedQueries:
    """Row i is about question i of the hold-out."""

    ranks: TargetRanks
    top: Positions  # int32 [n_users, <= LIST_LENGTH]


@dataclass(frozen=True)
class HoldoutRankings(RankedQueries):
    """Row i is the answer to question i of the hold-out."""

    seconds: float  # of scoring, masking and cutting the lists, which is what `Recommender.recommend` does
    unseen: RankedQueries | None = None  # the same with all items left out that the user had; None: not asked for

    @cached_property
    def per_user(self) -> dict[str, Floats]:
        """Every metric of `metrics.METRICS`, float64 [n_users]."""
        return per_user_metrics(self.ranks)


def rank_test_queries(
    model: Recommender, split: Split, batch_users: int = 256, tick: ProgressCallback | None = None
) -> HoldoutRankings:
    """`answer` to the test window, with lists of unseen items too where the questions leave seen ones in."""
    seen = None if split.mask == "all" else split.before_test.seen[split.test.users]
    return rank_queries(model, split.test, batch_users, tick, seen)


def rank_queries(
    model: Recommender,
    holdout: Holdout,
    batch_users: int = 256,
    tick: ProgressCallback | None = None,
    seen: sp.csr_array | None = None,
) -> HoldoutRankings:
    """Rank the whole catalogue for every question, of which there must be one.

    Args:
        model: scores the items of the hold-out.
        holdout: questions, targets and masks.
        batch_users: users scored at once; bounds memory to a few matrices of [batch_users, n_items].
        tick: told of the progress.
        seen: bool [n_users, n_items], what each user had; given, the answers say what is found among the other items.

    Raises:
        ValueError: no question, or a score that is not finite.
    """
    found: list[RankedQueries] = []
    unseen: list[RankedQueries] = []
    seconds = 0.0
    for start in range(0, len(holdout), batch_users):
        rows = np.arange(start, min(start + batch_users, len(holdout)))
        batch = holdout.take(rows)
        masked = batch.masked.toarray()
        began = time.perf_counter()
        scores = model.score(batch.histories)
        top = top_k(np.where(masked, -np.inf, scores), LIST_LENGTH).items
        seconds += time.perf_counter() - began
        found.append(RankedQueries(target_ranks(scores, batch.targets, batch.masked), top))
        if seen is not None:
            top = top_k(np.where(masked | seen[rows].toarray(), -np.inf, scores), LIST_LENGTH).items
            unseen.append(RankedQueries(leave_out(found[-1].ranks, scores, batch.masked, seen[rows]), top))
        if tick is not None:
            tick(start + len(batch), len(holdout))
    if not found:
        raise ValueError("there is no question to answer")
    whole = _together(found)
    return HoldoutRankings(whole.ranks, whole.top, seconds, _together(unseen) if unseen else None)


def _together(parts: list[RankedQueries]) -> RankedQueries:
    return RankedQueries(concatenate([part.ranks for part in parts]), np.concatenate([part.top for part in parts]))


def compare(
    one: Recommender | HoldoutRankings,
    other: Recommender | HoldoutRankings,
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
        found = each if isinstance(each, HoldoutRankings) else rank_queries(each, holdout)
        if len(found.ranks) != len(holdout):
            raise ValueError(f"{len(found.ranks)} answers do not belong to {len(holdout)} questions")
        values.append(found.per_user[metric])
    return paired_difference(values[0], values[1], n_resamples, seed)
