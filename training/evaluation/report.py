"""Exact evaluation of one model on one hold-out, as a report that can be read and compared later."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from training.data.splits import Split
from training.evaluation import list_metrics as lists
from training.evaluation import metrics
from training.evaluation.intervals import Estimate, aggregate_estimates, mean_estimates
from training.evaluation.rankings import (
    LIST_LENGTH,
    HoldoutRankings,
    ProgressCallback,
    RankedQueries,
    rank_test_queries,
)
from training.evaluation.segments import Segment, protocol_of, segments
from training.models.contract import Recommender

RANDOM = "random"
"""The name under which the expected figures of a random order stand in a report."""
_OF_LISTS = {f"coverage@{LIST_LENGTH}": lists.coverage, "gini": lists.gini}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentResult(_Record):
    """One model on one segment of the questions (`training.evaluation.segments`)."""

    model: str
    segment: str
    n_users: int
    n_targets: int
    metrics: dict[str, Estimate]
    fit_seconds: float | None = None
    recommend_seconds: float | None = None  # per 1,000 users
    peak_mb: float | None = None


class EvaluationReport(_Record):
    """Figures with everything one must know to compare them: protocol, data, split and seed."""

    protocol: str
    split_hash: str
    snapshot_id: str
    seed: int
    results: list[SegmentResult]
    notes: dict[str, Any] = {}

    def metric(self, name: str, segment: str = "all", model: str | None = None) -> float | None:
        """The mean of a metric, or None where the segment held nobody. Default model: the report's first."""
        found = self.estimate(name, segment, model)
        return None if found is None else found.mean

    def estimate(self, name: str, segment: str = "all", model: str | None = None) -> Estimate | None:
        """A metric with its interval, or None where the segment held nobody. Default model: the report's first."""
        model = model or self.results[0].model
        for result in self.results:
            if result.model == model and result.segment == segment and name in result.metrics:
                return result.metrics[name]
        return None

    def n_users(self, segment: str = "all") -> int:
        """Users measured in a segment, 0 where it held nobody."""
        return max((result.n_users for result in self.results if result.segment == segment), default=0)


def evaluate_model(
    model: Recommender,
    split: Split,
    *,
    seed: int = 0,
    batch_users: int = 256,
    n_resamples: int = 500,
    fit_seconds: float | None = None,
    peak_mb: float | None = None,
    notes: dict[str, Any] | None = None,
    tick: ProgressCallback | None = None,
    answers: HoldoutRankings | None = None,
) -> EvaluationReport:
    """Rank the full catalogue for every question of the test window and measure where the targets ended.

    Args:
        model: fitted on `split.before_test` or less; that is the caller's promise.
        split: names the protocol and the training data, which tells cold items.
        seed: of the bootstrap.
        batch_users: users scored at once; bounds memory to a few matrices of [batch_users, n_items].
        n_resamples: of the bootstrap intervals.
        fit_seconds, peak_mb: what the fit took, copied into the report.
        notes: whatever else belongs beside the figures.
        tick: told of the progress.
        answers: what `rank_test_queries` says of the model, where it has been asked already.
    """
    results: list[SegmentResult] = []
    if len(split.test):
        found = answers or rank_test_queries(model, split, batch_users, tick)
        usage = {
            "fit_seconds": fit_seconds,
            "recommend_seconds": 1_000 * found.seconds / len(split.test),
            "peak_mb": peak_mb,
        }
        for size, reached, chance in _figures(split, found, n_resamples, seed):
            results.append(SegmentResult(model=model.family, metrics=reached, **size, **usage))
            results.append(SegmentResult(model=RANDOM, metrics=chance, **size))
    return EvaluationReport(
        protocol=protocol_of(split),
        split_hash=split.hash,
        snapshot_id=split.before_test.snapshot_id,
        seed=seed,
        results=results,
        notes=notes or {},
    )


def _figures(
    split: Split, found: HoldoutRankings, n_resamples: int, seed: int
) -> Iterator[tuple[dict[str, Any], dict[str, Estimate], dict[str, Estimate]]]:
    """For each segment its name and size, what the model reaches there, and what a random order would."""
    described = {id(one): _describe(one, split) for one in (found, found.unseen) if one is not None}
    for segment in segments(split, found):
        users = segment.users
        ranked = found.per_user if segment.ranks is found.ranks else metrics.per_user_metrics(segment.ranks)
        columns = {**ranked, **described[id(segment.lists)]}
        listed = lists.listings(segment.lists.top[users], split.before_test.n_items)
        reached = {
            **mean_estimates({name: column[users] for name, column in columns.items()}, n_resamples, seed),
            **aggregate_estimates(listed, _OF_LISTS, n_resamples, seed),
        }
        size = {
            "segment": segment.name,
            "n_users": int(users.sum()),
            "n_targets": int(segment.ranks.n_targets[users].sum()),
        }
        yield size, reached, mean_estimates(_chance(segment), n_resamples, seed)


def _describe(ranked: RankedQueries, split: Split) -> dict[str, metrics.Floats]:
    """What each user's list is like, whatever was chosen from it; float64 [n_users]."""
    seen = split.before_test.seen
    return {
        "novelty": lists.novelty(ranked.top, seen),
        "intra_list_diversity": lists.intra_list_diversity(ranked.top, seen),
    }


def _chance(segment: Segment) -> dict[str, metrics.Floats]:
    n_ranked = segment.ranks.n_ranked[segment.users]
    n_targets = segment.ranks.n_targets[segment.users]
    return {
        **{f"ndcg@{k}": metrics.random_ndcg(n_ranked, n_targets, k) for k in metrics.CUTOFFS["ndcg"]},
        **{f"recall@{k}": metrics.random_recall(n_ranked, k) for k in metrics.CUTOFFS["recall"]},
    }
