"""The evaluation of one model on one test window, as a report that can be stored and compared later."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, field_serializer, model_validator

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
from training.evaluation.stored_config import UnreadableConfig, read_config
from training.models.contract import ModelConfig, Recommender

RANDOM = "random"
"""The model name of the expected figures of a random order, which every report holds for comparison."""
_AGGREGATE_METRICS = {f"coverage@{LIST_LENGTH}": lists.coverage, "gini": lists.gini}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentResult(_Record):
    """One model on one segment of the queries (`training.evaluation.segments`)."""

    model: str
    segment: str
    n_users: int
    n_targets: int
    metrics: dict[str, Estimate]
    fit_seconds: float | None = None
    recommend_seconds: float | None = None  # per 1,000 users
    peak_mb: float | None = None


class EvaluationReport(_Record):
    """Figures with everything one must know to compare or repeat them: protocol, data, split, seed, configuration."""

    family: str
    config: ModelConfig | UnreadableConfig | None = None  # None: the model was not fitted by this package
    protocol: str
    split_hash: str
    snapshot_id: str
    seed: int
    results: list[SegmentResult]
    notes: dict[str, Any] = {}  # what the fit recorded about itself

    @model_validator(mode="before")
    @classmethod
    def _read_config(cls, values: Any) -> Any:
        """Build the family's own configuration class. Reports of earlier versions hold the values in the notes."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        notes = dict(values.get("notes") or {})
        if "config" in notes and "config" not in values:
            values |= {"config": notes.pop("config"), "notes": notes}
        if "family" not in values and values.get("results"):
            first = values["results"][0]
            values["family"] = first["model"] if isinstance(first, dict) else first.model
        if isinstance(values.get("config"), dict):
            values["config"] = read_config(values.get("family", ""), values["config"])
        return values

    @field_serializer("config")
    def _write_config(self, config: ModelConfig | UnreadableConfig | None) -> dict[str, Any] | None:
        if isinstance(config, UnreadableConfig):
            return config.values
        return None if config is None else config.model_dump(mode="json")

    def metric(self, name: str, segment: str = "all", model: str | None = None) -> float | None:
        """The mean of a metric, or None where the segment held nobody. Default model: the report's own."""
        found = self.estimate(name, segment, model)
        return None if found is None else found.mean

    def estimate(self, name: str, segment: str = "all", model: str | None = None) -> Estimate | None:
        """A metric with its interval, or None where the segment held nobody. Default model: the report's own."""
        model = model or self.family
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
    on_progress: ProgressCallback | None = None,
    rankings: HoldoutRankings | None = None,
) -> EvaluationReport:
    """Rank the whole catalogue for every query of the test window, and measure at which ranks the targets are.

    Args:
        model: fitted on `split.before_test` or less, which the caller has to ensure.
        split: gives the test window, the protocol, and the training data that decides which items are cold.
        seed: of the bootstrap.
        batch_users: users scored at once; bounds memory to a few matrices of [batch_users, n_items].
        n_resamples: of the bootstrap intervals.
        fit_seconds, peak_mb: cost of the fit, copied into the report.
        notes: what the fit recorded about itself.
        on_progress: called while the queries are ranked.
        rankings: the result of `rank_test_queries`, where the caller has it already.
    """
    results: list[SegmentResult] = []
    if len(split.test):
        found = rankings or rank_test_queries(model, split, batch_users, on_progress)
        usage = {
            "fit_seconds": fit_seconds,
            "recommend_seconds": 1_000 * found.seconds / len(split.test),
            "peak_mb": peak_mb,
        }
        for size, reached, expected in _figures(split, found, n_resamples, seed):
            results.append(SegmentResult(model=model.family, metrics=reached, **size, **usage))
            results.append(SegmentResult(model=RANDOM, metrics=expected, **size))
    return EvaluationReport(
        family=model.family,
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
    """For each segment: its name and size, the model's metrics, and the expected metrics of a random order."""
    list_metrics = {id(each): _list_metrics(each, split) for each in (found, found.unseen) if each is not None}
    for segment in segments(split, found):
        users = segment.users
        ranked = found.per_user if segment.ranks is found.ranks else metrics.per_user_metrics(segment.ranks)
        columns = {**ranked, **list_metrics[id(segment.lists)]}
        listed = lists.listings(segment.lists.top[users], split.before_test.n_items)
        reached = {
            **mean_estimates({name: column[users] for name, column in columns.items()}, n_resamples, seed),
            **aggregate_estimates(listed, _AGGREGATE_METRICS, n_resamples, seed),
        }
        size = {
            "segment": segment.name,
            "n_users": int(users.sum()),
            "n_targets": int(segment.ranks.n_targets[users].sum()),
        }
        yield size, reached, mean_estimates(_expected_of_random(segment), n_resamples, seed)


def _list_metrics(ranked: RankedQueries, split: Split) -> dict[str, metrics.Floats]:
    """Metrics of each user's list that do not depend on what the user chose, float64 [n_users] each."""
    seen = split.before_test.seen
    return {
        "novelty": lists.novelty(ranked.top, seen),
        "intra_list_diversity": lists.intra_list_diversity(ranked.top, seen),
    }


def _expected_of_random(segment: Segment) -> dict[str, metrics.Floats]:
    """The expected metrics of a ranking in random order, float64 [n_users] each."""
    n_ranked = segment.ranks.n_ranked[segment.users]
    n_targets = segment.ranks.n_targets[segment.users]
    return {
        **{f"ndcg@{k}": metrics.random_ndcg(n_ranked, n_targets, k) for k in metrics.CUTOFFS["ndcg"]},
        **{f"recall@{k}": metrics.random_recall(n_ranked, k) for k in metrics.CUTOFFS["recall"]},
    }
