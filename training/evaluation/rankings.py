"""Rankings of a model for the queries of a hold-out: the rank of every target, and the lists it would recommend."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from training.data.splits import Holdout, Split
from training.evaluation.intervals import Estimate, Floats, paired_difference
from training.evaluation.metrics import TargetRanks, concatenate, leave_out, per_user_metrics, target_ranks
from training.models.contract import Positions, Recommender
from training.models.lists import top_k

LIST_LENGTH = 10
"""Length of the recommended lists."""
ProgressCallback = Callable[[int, int], None]
"""Called with the number of queries that are ranked and the number of all."""


@dataclass(frozen=True)
class RankedQueries:
    """Row i belongs to query i of the hold-out."""

    ranks: TargetRanks
    top: Positions  # int32 [n_queries, <= LIST_LENGTH]


@dataclass(frozen=True)
class HoldoutRankings(RankedQueries):
    """The rankings of all queries of a hold-out."""

    seconds: float  # spent on scoring, masking and cutting the lists, which is what `Recommender.recommend` does
    unseen: RankedQueries | None = None
    """The rankings of the items that each user had not seen; None where they were not requested."""

    @cached_property
    def per_user(self) -> dict[str, Floats]:
        """Every metric of `metrics.METRICS`, float64 [n_queries]."""
        return per_user_metrics(self.ranks)


def rank_test_queries(
    model: Recommender, split: Split, batch_users: int = 256, on_progress: ProgressCallback | None = None
) -> HoldoutRankings:
    """`rank_queries` of the test window, with rankings of unseen items too where the split leaves seen items in."""
    seen = None if split.mask == "all" else split.before_test.seen[split.test.users]
    return rank_queries(model, split.test, batch_users, on_progress, seen)


def rank_queries(
    model: Recommender,
    holdout: Holdout,
    batch_users: int = 256,
    on_progress: ProgressCallback | None = None,
    seen: sp.csr_array | None = None,
) -> HoldoutRankings:
    """Rank the whole catalogue for every query.

    Args:
        model: scores the items of the hold-out.
        holdout: queries, targets and masks.
        batch_users: queries scored at once; bounds memory to a few matrices of [batch_users, n_items].
        on_progress: called after each batch.
        seen: bool [n_queries, n_items], the items that each user had seen. If given, the result also holds rankings
            without them.

    Raises:
        ValueError: the hold-out is empty, or a score is not finite.
    """
    batches: list[RankedQueries] = []
    unseen: list[RankedQueries] = []
    seconds = 0.0
    for rows in holdout.batches(batch_users):
        batch = holdout.take(rows)
        masked = batch.masked.toarray()
        began = time.perf_counter()
        scores = model.score(batch.histories)
        top = top_k(np.where(masked, -np.inf, scores), LIST_LENGTH).items
        seconds += time.perf_counter() - began
        batches.append(RankedQueries(target_ranks(scores, batch.targets, batch.masked), top))
        if seen is not None:
            top = top_k(np.where(masked | seen[rows].toarray(), -np.inf, scores), LIST_LENGTH).items
            unseen.append(RankedQueries(leave_out(batches[-1].ranks, scores, batch.masked, seen[rows]), top))
        if on_progress is not None:
            on_progress(int(rows[-1]) + 1, len(holdout))
    if not batches:
        raise ValueError("there is no query to rank for")
    whole = _concatenate(batches)
    return HoldoutRankings(whole.ranks, whole.top, seconds, _concatenate(unseen) if unseen else None)


def _concatenate(batches: list[RankedQueries]) -> RankedQueries:
    return RankedQueries(concatenate([each.ranks for each in batches]), np.concatenate([each.top for each in batches]))


def compare(
    one: Recommender | HoldoutRankings,
    other: Recommender | HoldoutRankings,
    holdout: Holdout,
    metric: str = "ndcg@10",
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """The paired difference of a metric between two models on the same queries: `one` minus `other`.

    Args:
        one, other: models, or their rankings for this hold-out.
        holdout: the queries. To compare on a part of them (`holdout.take`), pass models.
        metric: a name of `metrics.METRICS`.
        n_resamples, seed: of the bootstrap.

    Raises:
        ValueError: the rankings are of another number of queries, or no query has the metric.
    """
    values = []
    for each in (one, other):
        rankings = each if isinstance(each, HoldoutRankings) else rank_queries(each, holdout)
        if len(rankings.ranks) != len(holdout):
            raise ValueError(f"{len(rankings.ranks)} rankings do not belong to {len(holdout)} queries")
        values.append(rankings.per_user[metric])
    return paired_difference(values[0], values[1], n_resamples, seed)
