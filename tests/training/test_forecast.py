"""What a training will take is said before it starts, from counted work, and logged beside what it took."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from tests.fixtures.busy import busy_cores
from tests.fixtures.platform import ROOT
from tests.training.catalogue import build_dataset
from training.config import load_config
from training.data.dataset import Dataset, from_events
from training.data.splits import Split, temporal_split
from training.forecast import Forecast, PastTraining, PlannedFit, forecast, probe
from training.models.contract import ModelConfig, Recommender, RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.hybrid.config import HybridConfig
from training.models.hybrid.workload import hybrid_workload
from training.models.linear import LinearRecommender
from training.models.popularity import Popularity
from training.models.registry import families, family_class
from training.models.workload import DataSizes, Workload
from training.resource_usage import processor_model, resident_mb
from training.tracking.payload import past_training
from training.train import evaluate_family

OPTIONS = RuntimeOptions(threads=1)


def test_sizes_by_hand() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "a", 3), ("v", "c", 4), ("w", "a", 5)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    items = pd.DataFrame({"item_id": list("abcd"), "metadata": [{"title": "a", "year": 1}, {"title": "b"}, {}, {}]})
    assert DataSizes.of(from_events(frame, items), validation_users=2) == DataSizes(
        events=5,
        users=3,
        items=4,
        history_events=5,
        pairs=4,
        co_pairs=2**2 + 1 + 1,
        all_pairs=4,
        all_co_pairs=6,
        earlier_events=(0 + 1 + 2) / 5,
        metadata_values=3,
        validation_users=2,
    )
    bounded = DataSizes.of(from_events(frame, items, max_events=1))
    assert (bounded.events, bounded.history_events, bounded.co_pairs, bounded.all_co_pairs) == (5, 3, 3, 6)


def test_a_log_without_events_has_sizes_too() -> None:
    dataset = build_dataset()
    nothing = DataSizes.of(dataset.where(np.zeros(len(dataset.interactions), dtype=bool)))
    assert (nothing.events, nothing.users, nothing.pairs, nothing.co_pairs) == (0, 0, 0, 0)
    assert nothing.items == dataset.n_items and nothing.history_length == 0


@pytest.fixture(scope="module")
def split() -> Split:
    return temporal_split(build_dataset())


def planned(split: Split, max_seconds: float = 600.0) -> list[PlannedFit]:
    queries = len(split.validation)
    return [PlannedFit(DataSizes.of(dataset, queries), max_seconds) for dataset in (split.train, split.before_test)]


def learned_numbers(model: Recommender) -> int:
    """Of a linear model or a baseline: what it scores with, and its vectors."""
    if isinstance(model, LinearRecommender):
        kernels = [term.kernel for term in model.terms]
        arrays = [array for kernel in kernels for name, array in kernel.arrays().items() if name in ("data", "weights")]
        return sum(array.size for array in arrays) + model.base.size + model.vectors.size
    return model.n_items


@pytest.mark.fit
@pytest.mark.parametrize("family", ["popularity", "collaborative"])
def test_rows_and_parameters_are_exact_where_a_kernel_is_dense(family: str, split: Split) -> None:
    found = evaluate_family(family, split, options=OPTIONS, config=load_config(family))
    notes = found.report.notes
    assert notes["rows"] == len(split.before_test.interactions)
    assert notes["forecast_parameters"] == learned_numbers(found.evaluated)


@pytest.mark.fit
def test_parameters_are_an_upper_bound_where_weights_may_be_zero(split: Split) -> None:
    found = evaluate_family("item-knn", split, options=OPTIONS)
    expected, actual = found.report.notes["forecast_parameters"], learned_numbers(found.evaluated)
    assert actual <= expected < 2 * actual


@pytest.mark.fit
def test_the_forecast_stands_beside_what_was_measured(split: Split) -> None:
    before = resident_mb()
    found = evaluate_family("collaborative", split, options=OPTIONS)
    notes = found.report.notes
    assert notes["forecast_cpu_seconds"] > 0 and notes["forecast_peak_mb"] >= 0.9 * before and notes["work"] > 0
    assert notes["machine"] == processor_model() and notes["forecast_trainings"] == 0
    assert found.usage.peak_mb > 0 and found.usage.seconds > 0 and found.usage.cpu_seconds > 0


@pytest.mark.parametrize("family", families())
def test_more_data_never_costs_less(family: str) -> None:
    config = load_config(family)
    little, much = (
        forecast(family, config, planned(temporal_split(made_of(users, items))), threads=1)
        for users, items in ((20, 30), (200, 300))
    )
    assert much.rows == 10 * little.rows and known(much, "parameters") >= known(little, "parameters")
    assert known(much, "work") > known(little, "work") and known(much, "cpu_seconds") > known(little, "cpu_seconds")


def known(found: Forecast, name: str) -> float:
    value = getattr(found, name)
    assert value is not None
    return float(value)


def made_of(users: int, items: int, events: int = 20) -> Dataset:
    """Users with so many events each, at items drawn evenly."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), events).astype(str),
            "item_id": [f"i{item}" for item in rng.integers(0, items, users * events)],
            "timestamp": np.arange(users * events) + 10**15,
        }
    )
    return from_events(frame, pd.DataFrame({"item_id": [f"i{n}" for n in range(items)], "metadata": [{}] * items}))


def test_a_fit_that_ends_in_time_takes_no_more_than_that(split: Split) -> None:
    config = DeepLearningConfig(dimensions=8, heads=1, blocks=1, epochs=100_000, patience=100_000)
    free, bounded = (forecast("deep-learning", config, planned(split, each), threads=1) for each in (1e9, 2.0))
    assert known(free, "cpu_seconds") > 100
    assert known(bounded, "cpu_seconds") <= 2 * 2.0
    both = forecast("deep-learning", config, planned(split, 2.0), threads=2)
    assert known(bounded, "cpu_seconds") < known(both, "cpu_seconds") <= 2 * 2 * 2.0


@pytest.mark.fit
def test_all_epochs_of_a_transformer_are_expected(split: Split) -> None:
    config = DeepLearningConfig(dimensions=8, heads=1, blocks=1, max_length=10, epochs=1, refit_epochs=1)
    few, more, most = (
        forecast("deep-learning", config.model_copy(update={"epochs": epochs}), planned(split, 1e9), threads=1)
        for epochs in (1, 101, 201)
    )
    one, other = known(more, "work") - known(few, "work"), known(most, "work") - known(more, "work")
    assert 0 < one == pytest.approx(other)
    model = family_class("deep-learning")(config).fit(split.train, OPTIONS)
    actual = model.record()["parameters"] + model.n_items * config.dimensions
    assert actual / 2 < known(few, "parameters") < 2 * actual


def test_an_ensemble_scores_as_many_queries_as_it_will_learn_from() -> None:
    sizes = DataSizes.of(build_dataset(), validation_users=50)
    base = {"one": Workload(10, seconds=5.0, scoring_seconds=1.0)}

    def scored(**settings: Any) -> float:
        config = HybridConfig(evidence_users=1, scale_users=1, **settings)
        return hybrid_workload(sizes, config, False, base).seconds

    assert scored(queries_per_user=3) - scored() == pytest.approx(4 * 100, rel=0.01)  # each is scored four times
    assert scored(queries_per_user=3, max_queries=50) == scored()


def test_earlier_trainings_correct_the_formula(split: Split) -> None:
    config = load_config("collaborative")
    first = forecast("collaborative", config, planned(split), threads=1)
    work = known(first, "work")
    expected = known(first, "cpu_seconds") / work  # seconds that the probe gives one second of work

    def corrected(*past: PastTraining) -> float:
        return known(forecast("collaborative", config, planned(split), 1, None, past), "cpu_seconds") / work

    slow = PastTraining(rows=1, work=100 / expected, cpu_seconds=300.0, peak_mb=1.0)
    assert corrected(slow) == pytest.approx(expected * (1 + 300) / (1 + 100))
    assert corrected(slow, slow) == pytest.approx(expected * (1 + 600) / (1 + 200))
    short = PastTraining(rows=1, work=0.001 / expected, cpu_seconds=0.3, peak_mb=1.0)  # most of it is overhead
    assert corrected(short) < 1.4 * expected
    unknown = PastTraining(rows=1, work=None, cpu_seconds=300.0, peak_mb=1.0)  # logged before work was counted
    assert corrected(unknown) == pytest.approx(expected)


class Unknown(Popularity):
    """A plug-in that declares no formula."""

    family = "unknown"

    @classmethod
    def workload(
        cls, sizes: DataSizes, config: Any, refit: bool = False, base_models: Mapping[str, Workload] | None = None
    ) -> None:
        return None


def test_a_family_without_a_formula_is_forecast_from_its_first_training_on(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.forecast.family_class", lambda family: Unknown)
    fits = planned(split)
    first = forecast("unknown", ModelConfig(), fits, threads=1)
    assert (first.cpu_seconds, first.peak_mb, first.parameters, first.work) == (None, None, None, None)
    assert first.notes().keys() == {"rows", "forecast_trainings", "machine"}
    past = [PastTraining(rows=first.rows // 2, work=None, cpu_seconds=7.0, peak_mb=900.0)]
    second = forecast("unknown", ModelConfig(), fits, 1, None, past)
    assert (second.cpu_seconds, second.peak_mb, second.trainings) == (pytest.approx(14.0), 900.0, 1)


@pytest.mark.fit
def test_a_base_model_without_a_formula_is_left_out(split: Split) -> None:
    base: dict[str, Recommender] = {"popularity": Popularity().fit(split.train, OPTIONS)}
    config = HybridConfig()
    alone = forecast("hybrid", config, planned(split), 1, base)
    beside = forecast("hybrid", config, planned(split), 1, {**base, "unknown": Unknown().fit(split.train, OPTIONS)})
    assert beside.work == alone.work


def test_a_run_says_what_it_did_only_where_it_compares() -> None:
    metrics = {"fit/rows": 5.0, "fit/work": 2.0, "fit_cpu_seconds": 3.0, "peak_mb": 4.0}
    here = {"fit.machine": processor_model()}
    assert past_training(metrics, here) == PastTraining(5, 2.0, 3.0, 4.0)
    assert past_training(metrics, {"fit.machine": "another"}) is None
    assert past_training(metrics, {**here, "fit.stopped": "time"}) is None
    assert past_training(metrics, {**here, "fit.stopped": "patience"}) is not None
    assert past_training(metrics, {}) is None  # logged before it said where it ran


WAITING = """
import time
from training.resource_usage import measure_usage
with measure_usage() as usage:
    time.sleep(0.3)
print(usage.result.cpu_seconds < 0.15, usage.result.seconds >= 0.3)
"""


@pytest.mark.service
def test_waiting_is_no_work_of_the_processor() -> None:
    # In a process of its own: the threads of this one, whatever they are at, count too.
    done = subprocess.run([sys.executable, "-c", WAITING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 2


@pytest.mark.service
def test_busy_neighbours_do_not_move_the_probe() -> None:
    alone = probe.__wrapped__()
    with busy_cores():
        beside = probe.__wrapped__()
    assert 0.5 < beside / alone < 2
    assert probe() is probe()  # a process measures once


@pytest.mark.fit
def test_a_forecast_holds_while_neighbours_are_busy_cores() -> None:
    split = temporal_split(made_of(users=300, items=900, events=100))
    evaluate_family("popularity", split, options=OPTIONS)  # imports what all families use
    with busy_cores(), threadpool_limits(1):  # threads that wait for each other would spin
        found = evaluate_family("collaborative", split, options=OPTIONS)
    assert 0.5 < found.report.notes["forecast_cpu_seconds"] / found.usage.cpu_seconds < 2
