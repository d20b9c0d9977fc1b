"""The MLflow payload of a training: flat metrics and parameters."""

import json
import re
from collections.abc import Mapping
from typing import Any

from training.evaluation.report import EvaluationReport
from training.forecast import PastTraining
from training.resource_usage import processor_model
from training.train import TrainedModel

HEADLINE = ("ndcg@10", "ndcg@20", "recall@10", "recall@20", "hit_rate@10", "mrr", "auc", "coverage@10")
"""Metrics of all evaluated users that are also logged without their segment: `ndcg_at_10` as well as
`all/ndcg_at_10`. People search for the first, and compare segments by the second."""

_REFUSED = re.compile(r"[^/\w.\- :]")
"""Characters that MLflow refuses in the name of a metric."""


def metrics(trained: TrainedModel) -> dict[str, list[float]]:
    """Metric names to values. Several values are a curve over epochs."""
    found: dict[str, list[float]] = {
        "fit_seconds": [trained.usage.seconds],
        "fit_cpu_seconds": [trained.usage.cpu_seconds],
        "peak_mb": [trained.usage.peak_mb],
        "score_center": [trained.score_map.center],
        "score_scale": [trained.score_map.scale],
    }
    for result in trained.report.results:
        for name, estimate in result.metrics.items():
            key = _key(result.segment, name)
            found[key if result.model == trained.family else f"{result.model}/{key}"] = [estimate.mean]
        found[f"{result.segment}/users"] = [float(result.n_users)]
    for name, value in trained.report.notes.items():
        if isinstance(value, int | float):
            found[f"fit/{metric_name(name)}"] = [float(value)]
        elif isinstance(value, list) and value and all(isinstance(one, int | float) for one in value):
            found[f"fit/{metric_name(name)}"] = [float(one) for one in value]
    return found


def past_training(metrics: Mapping[str, float], params: Mapping[str, str]) -> PastTraining | None:
    """What a logged run did and took; None for a run on another processor, and for one that ran out of time."""
    if params.get("fit.machine") != processor_model() or params.get("fit.stopped") == "time":
        return None
    rows, work = int(metrics["fit/rows"]), metrics.get("fit/work")
    return PastTraining(rows, work, metrics["fit_cpu_seconds"], metrics["peak_mb"])


def params(trained: TrainedModel) -> dict[str, Any]:
    """Hyper-parameters by dotted path, and the texts among the notes of the fit."""
    texts = {f"fit.{name}": value for name, value in trained.report.notes.items() if isinstance(value, str)}
    return {**dotted(trained.config.model_dump(mode="json")), **texts, "seed": trained.seed}


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted path; lists as JSON."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(dotted(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = json.dumps(value) if isinstance(value, list | tuple) else value
    return found


def summary(report: EvaluationReport) -> dict[str, str]:
    """The metrics that are shown beside a version in the registry, by tag name."""
    names = [(name, segment) for segment in ("all", "warm") for name in ("ndcg@10", "recall@10", "auc")]
    found = {_key(segment, name): report.metric(name, segment) for name, segment in names if report.results}
    return {name: f"{value:.4f}" for name, value in found.items() if value is not None}


def headline(report: EvaluationReport) -> dict[str, float]:
    """The main metrics of all evaluated users, by the name without a segment."""
    found = {metric_name(name): report.metric(name) for name in HEADLINE}
    return {name: value for name, value in found.items() if value is not None}


def metric_name(metric: str) -> str:
    """The name under which MLflow keeps a metric. MLflow refuses @ and others that a metadata field may have."""
    return _REFUSED.sub("_", metric.replace("@", "_at_"))


def _key(segment: str, metric: str) -> str:
    return f"{segment}/{metric_name(metric)}"
