"""Training one family: three fits under one protocol, and a report of the one that was fitted before the test."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tests.training.catalogue import build_dataset
from training import train
from training.config import load_config
from training.data.dataset import Dataset
from training.data.splits import leave_one_out_split, temporal_split
from training.models.contract import RuntimeOptions
from training.models.popularity import Popularity, PopularityConfig
from training.resource_usage import measure_usage
from training.train import TrainedModel, evaluate_family, train_family

pytestmark = pytest.mark.fit

OPTIONS = RuntimeOptions(threads=1, seed=5)
DATASET = build_dataset()


@pytest.fixture(scope="module")
def base_models() -> dict[str, TrainedModel]:
    return {name: train_family(name, DATASET, options=OPTIONS) for name in ("popularity", "collaborative")}


def test_each_stage_knows_exactly_the_events_before_its_moment(base_models: dict[str, TrainedModel]) -> None:
    trained, split = base_models["popularity"], temporal_split(DATASET)
    for stage, data in (("validated", split.train), ("evaluated", split.before_test), ("model", DATASET)):
        expected = Popularity(load_config("popularity")).fit(data, OPTIONS)  # type: ignore[arg-type]
        assert np.array_equal(getattr(trained, stage).values, expected.values)


def test_the_report_is_of_the_evaluated_model_and_says_how(base_models: dict[str, TrainedModel]) -> None:
    trained, split = base_models["popularity"], temporal_split(DATASET)
    assert trained.report.split_hash == split.hash
    assert trained.report.protocol.startswith(split.protocol)
    assert "fitted on the events before the test window, the served one on all events" in trained.report.protocol
    assert trained.report.seed == 5
    assert trained.report.config == trained.config
    assert trained.report.results[0].fit_seconds is not None


def test_a_personal_family_beats_the_list_that_is_the_same_for_all(base_models: dict[str, TrainedModel]) -> None:
    own, same = (base_models[name].report.metric("ndcg@10", "warm") for name in ("collaborative", "popularity"))
    assert own is not None and same is not None and own > 1.2 * same


def test_the_tenants_policy_decides_what_is_masked() -> None:
    reports = {
        mask: train_family("popularity", DATASET, options=OPTIONS, exclude_seen=mask).report for mask in ("all", "none")
    }
    assert "no item is masked" in reports["none"].protocol
    assert reports["all"].split_hash != reports["none"].split_hash


def test_a_training_is_taken_over_from_disk(base_models: dict[str, TrainedModel], tmp_path: Path) -> None:
    ensemble = train_family("hybrid", DATASET, options=OPTIONS, base_models=base_models)
    for name, one in (*base_models.items(), ("hybrid", ensemble)):
        one.save(tmp_path / name)
    loaded = {name: TrainedModel.load(tmp_path / name) for name in base_models}
    reloaded = TrainedModel.load(tmp_path / "hybrid", loaded)
    histories = DATASET.histories()
    for stage in ("validated", "evaluated", "model"):
        assert np.array_equal(getattr(reloaded, stage).score(histories), getattr(ensemble, stage).score(histories))
    assert (reloaded.report, reloaded.score_map, reloaded.usage) == (
        ensemble.report,
        ensemble.score_map,
        ensemble.usage,
    )


def test_an_ensemble_learns_from_the_past_and_serves_with_the_present(base_models: dict[str, TrainedModel]) -> None:
    ensemble = train_family("hybrid", DATASET, options=OPTIONS, base_models=base_models)
    for stage in ("validated", "evaluated", "model"):
        assert getattr(ensemble, stage).base_models == {name: getattr(one, stage) for name, one in base_models.items()}
    assert "kept_base_model" in ensemble.report.notes


def test_an_earlier_configuration_is_measured_on_the_new_window(base_models: dict[str, TrainedModel]) -> None:
    split = temporal_split(DATASET)
    config = load_config("popularity")
    same = evaluate_family("popularity", split, options=OPTIONS, config=config).report
    config = PopularityConfig(half_life_days=0.01)
    other = evaluate_family("popularity", split, options=OPTIONS, config=config).report
    assert same.metric("auc") == base_models["popularity"].report.metric("auc")
    assert other.metric("auc") != same.metric("auc") and other.split_hash == same.split_hash


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(KeyError, match="no model family 'oracle'"):
        train_family("oracle", DATASET, options=OPTIONS)


def test_memory_is_measured_over_the_block_only() -> None:
    with measure_usage() as before:
        pass
    with measure_usage() as usage:
        block = np.ones(30_000_000)  # 240 MB, touched
    del block
    with measure_usage() as after:
        pass
    assert usage.result.peak_mb > before.result.peak_mb + 150
    assert after.result.peak_mb < usage.result.peak_mb - 150
    assert usage.result.seconds > 0


def test_an_ensemble_learns_from_the_events_that_validate_where_users_last_events_are_held_out() -> None:
    split = leave_one_out_split(DATASET)
    base_models = {
        name: train_family(name, DATASET, options=OPTIONS, split=split) for name in ("popularity", "collaborative")
    }
    ensemble = train_family("hybrid", DATASET, options=OPTIONS, base_models=base_models, split=split)
    assert ensemble.report.protocol.startswith("leave-one-out")
    assert ensemble.report.notes["ranker_queries"] == len(split.validation)


class _WatchesThreads(Popularity):
    """Popularity that notes how many threads linear algebra has while it is fitted."""

    threads: ClassVar[list[int]] = []

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> "_WatchesThreads":
        self.threads.append(max(pool["num_threads"] for pool in threadpool_info()))
        return super().fit(dataset, options)


def test_each_fit_has_the_threads_that_the_options_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "family_class", lambda _: _WatchesThreads)
    with threadpool_limits(3):
        for threads in (1, 2):
            train_family("popularity", DATASET, options=RuntimeOptions(threads=threads))
        after = {pool["num_threads"] for pool in threadpool_info()}
    assert _WatchesThreads.threads == [1, 1, 1, 2, 2, 2]
    assert after == {3}
