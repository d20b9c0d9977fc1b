"""A report says who was evaluated, what was reached, and compares with chance."""

from dataclasses import replace

import numpy as np
import pytest

from tests.training.catalogue import build_dataset
from training.data.splits import Split, temporal_split
from training.evaluation.report import EvaluationReport, evaluate_model
from training.models.contract import RuntimeOptions
from training.models.popularity import Popularity

pytestmark = pytest.mark.fit


@pytest.fixture(scope="module")
def split() -> Split:
    """The small world, with some users that nobody had seen before the test window."""
    dataset = build_dataset()
    events = dataset.interactions
    late = events.timestamps > np.quantile(events.timestamps, 0.9)
    return temporal_split(dataset.where(late | (events.users >= 20)))


class Oracle(Popularity):
    """Knows the targets of one holdout, whose queries come in order and in one batch."""

    def __init__(self, targets: np.ndarray) -> None:
        super().__init__()
        self.targets = targets

    def score(self, histories, candidates=None):  # type: ignore[no-untyped-def]
        return self.targets.astype(np.float32)


def test_perfect_rankings_reach_one_and_inverted_ones_zero(split: Split) -> None:
    targets = split.test.targets.toarray()
    perfect = evaluate_model(Oracle(targets), split, batch_users=10_000)
    assert [perfect.metric(name) for name in ("ndcg@10", "mrr", "auc", "hit_rate@10")] == [1.0, 1.0, 1.0, 1.0]
    inverted = evaluate_model(Oracle(~targets), split, batch_users=10_000)
    assert inverted.metric("auc") == 0.0


def test_the_batch_size_changes_nothing(split: Split) -> None:
    model = Popularity().fit(split.before_test, RuntimeOptions())
    whole, batched = (evaluate_model(model, split, batch_users=size) for size in (10_000, 7))
    for one, other in zip(whole.results, batched.results, strict=True):
        assert one.metrics == other.metrics


def test_segments_divide_the_users_and_chance_stands_beside_each(split: Split) -> None:
    report = evaluate_model(Popularity().fit(split.before_test, RuntimeOptions()), split)
    assert report.n_users("warm") + report.n_users("cold_users") == report.n_users() == len(split.test)
    assert report.n_users("cold_users") >= 10
    chance = report.metric("ndcg@10", model="random")
    reached = report.metric("ndcg@10")
    assert chance is not None and reached is not None and 0 < chance < reached
    assert report.metric("ndcg@10", "cold_items") is None or report.n_users("cold_items") > 0


def test_a_mean_lies_within_its_interval_and_the_report_survives_json(split: Split) -> None:
    report = evaluate_model(Popularity().fit(split.before_test, RuntimeOptions()), split, seed=4, notes={"a": 1})
    estimate = report.results[0].metrics["ndcg@10"]
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < estimate.mean < estimate.high
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report
    assert (report.split_hash, report.protocol, report.seed) == (split.hash, split.protocol, 4)


def test_one_list_for_everybody_covers_little_of_the_catalogue(split: Split) -> None:
    report = evaluate_model(Popularity().fit(split.before_test, RuntimeOptions()), split)
    coverage = report.metric("coverage@10")
    assert coverage is not None and 10 / split.train.n_items <= coverage < 0.4


def test_a_window_without_queries_is_a_report_without_results(split: Split) -> None:
    nobody = replace(split, test=split.test.take(np.empty(0, dtype=np.int64)))
    report = evaluate_model(Popularity().fit(split.before_test, RuntimeOptions()), nobody)
    assert report.results == [] and report.n_users() == 0
