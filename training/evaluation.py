"""Exact evaluation of one model on one hold-out, as a report that can be read and compared later."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from training import metrics
from training.models.contract import NO_ITEM, Recommender, top_k
from training.splits import Split

COVERAGE_AT = 10
RANDOM = "random"
"""The name under which the expected figures of a random order stand in a report."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(_Record):
    """A mean over users with its 95 % bootstrap interval; no interval where the figure is no mean."""

    mean: float
    low: float | None = None
    high: float | None = None


class SegmentResult(_Record):
    """One model on one segment of the questions.

    Segments: `all`; `warm_users` have a history at the time of the query, `cold_users` have none; `cold_items`
    counts only targets without an event before the test window, ranked among all items.
    """

    model: str
    segment: str
    n_users: int
    n_targets: int
    metrics: dict[str, Estimate]
    fit_seconds: float | None = None
    recommend_seconds: float | None = None
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


def evaluate(
    model: Recommender,
    split: Split,
    *,
    seed: int = 0,
    batch_users: int = 256,
    n_resamples: int = 500,
    fit_seconds: float | None = None,
    peak_mb: float | None = None,
    notes: dict[str, Any] | None = None,
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
    """
    holdout = split.test
    cold_items = np.bincount(split.before_test.interactions.items, minlength=split.before_test.n_items) == 0
    parts: list[tuple[metrics.TargetRanks, metrics.TargetRanks]] = []
    recommended: list[npt.NDArray[np.int32]] = []
    seconds = 0.0
    for start in range(0, len(holdout), batch_users):
        batch = holdout.take(np.arange(start, min(start + batch_users, len(holdout))))
        began = time.perf_counter()
        scores = model.score(batch.histories)
        seconds += time.perf_counter() - began
        found = metrics.target_ranks(scores, batch.targets, batch.masked)
        parts.append((found, found.among(cold_items)))
        recommended.append(top_k(np.where(batch.masked.toarray(), -np.inf, scores), COVERAGE_AT).items)
    results = []
    if parts:
        values = _stack([metrics.per_user_metrics(found) for found, _ in parts])
        cold = _stack([metrics.per_user_metrics(found) for _, found in parts])
        top = np.concatenate(recommended)
        counts = np.diff(holdout.targets.indptr)
        cold_counts = np.concatenate([np.bincount(found.rows, minlength=len(found)) for _, found in parts])
        warm = holdout.histories.lengths > 0
        everyone = np.ones(len(holdout), dtype=bool)
        segments = [
            ("all", everyone, values, counts),
            ("warm_users", warm, values, counts),
            ("cold_users", ~warm, values, counts),
            ("cold_items", cold_counts > 0, cold, cold_counts),
        ]
        n_ranked = np.concatenate([found.n_ranked for found, _ in parts])
        for name, users, columns, n_targets in segments:
            if not users.any():
                continue
            estimates = _estimates({key: column[users] for key, column in columns.items()}, n_resamples, seed)
            estimates[f"coverage@{COVERAGE_AT}"] = Estimate(mean=_coverage(top[users], split.before_test.n_items))
            size = {"segment": name, "n_users": int(users.sum()), "n_targets": int(n_targets[users].sum())}
            results.append(
                SegmentResult(
                    model=model.family,
                    metrics=estimates,
                    fit_seconds=fit_seconds,
                    recommend_seconds=seconds,
                    peak_mb=peak_mb,
                    **size,
                )
            )
            chance = {
                f"ndcg@{k}": metrics.random_ndcg(n_ranked[users], n_targets[users], k) for k in metrics.CUTOFFS["ndcg"]
            }
            results.append(SegmentResult(model=RANDOM, metrics=_estimates(chance, n_resamples, seed), **size))
    return EvaluationReport(
        protocol=split.protocol,
        split_hash=split.hash,
        snapshot_id=split.before_test.snapshot_id,
        seed=seed,
        results=results,
        notes=notes or {},
    )


def _stack(parts: list[dict[str, metrics.Floats]]) -> dict[str, metrics.Floats]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _estimates(columns: dict[str, metrics.Floats], n_resamples: int, seed: int) -> dict[str, Estimate]:
    """Means over the users that have the metric at all; a metric nobody has is left out."""
    columns = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    values = np.column_stack(list(columns.values()))
    means = metrics.bootstrap_means(values, n_resamples, seed)
    low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    return {
        name: Estimate(mean=float(np.nanmean(column)), low=float(low[i]), high=float(high[i]))
        for i, (name, column) in enumerate(columns.items())
    }


def _coverage(top: npt.NDArray[np.int32], n_items: int) -> float:
    """The share of the catalogue that appears in any of the lists. top: int32 [n_users, k]."""
    return len(np.setdiff1d(top, [NO_ITEM])) / n_items
