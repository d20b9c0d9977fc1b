"""Training one family: three fits under one protocol, and a report of the one that was fitted before the test."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.catalogue import build_dataset
from training.config import load_config
from training.data.splits import leave_one_out_split, temporal_split
from training.models.contract import RuntimeOptions
from training.models.popularity import Popularity, PopularityConfig
from training.resource_usage import measure_usage
from training.train import TrainedModel, evaluate_family, train_family

OPTIONS = RuntimeOptions(threads=1, seed=5)
DATASET = build_dataset()


@pytest.fixture(scope="module")
def components() -> dict[str, TrainedModel]:
    return {name: train_family(name, DATASET, options=OPTIONS) for name in ("popularity", "collaborative")}


def test_each_stage_knows_exactly_the_events_before_its_moment(components: dict[str, TrainedModel]) -> None:
    trained, split = components["popularity"], temporal_split(DATASET)
    for stage, data in (("tuned", split.train), ("evaluated", split.before_test), ("model", DATASET)):
        expected = Popularity(load_config("popularity")).fit(data, OPTIONS)  # type: ignore[arg-type]
        assert np.array_equal(getattr(trained, stage).values, expected.values)


def test_the_report_is_of_the_evaluated_model_and_says_how(components: dict[str, TrainedModel]) -> None:
    trained, split = components["popularity"], temporal_split(DATASET)
    assert trained.report.split_hash == split.hash
    assert trained.report.protocol.startswith(split.protocol)
    assert "fitted on the events before the test window, the served one on all events" in trained.report.protocol
    assert trained.report.seed == 5
    assert trained.report.notes["config"] == trained.config.model_dump(mode="json")
    assert trained.report.results[0].fit_seconds is not None


def test_a_personal_family_beats_the_list_that_is_the_same_for_all(components: dict[str, TrainedModel]) -> None:
    own, same = (components[name].report.metric("ndcg@10", "warm") for name in ("collaborative", "popularity"))
    assert own is not None and same is not None and own > 1.2 * same


def test_the_tenants_policy_decides_what_is_masked() -> None:
    reports = {
        mask: train_family("popularity", DATASET, options=OPTIONS, exclude_seen=mask).report for mask in ("all", "none")
    }
    assert "no item is masked" in reports["none"].protocol
    assert reports["all"].split_hash != reports["none"].split_hash


def test_a_training_is_taken_over_from_disk(components: dict[str, TrainedModel], tmp_path: Path) -> None:
    blend = train_family("hybrid", DATASET, options=OPTIONS, components=components)
    for name, one in (*components.items(), ("hybrid", blend)):
        one.save(tmp_path / name)
    loaded = {name: TrainedModel.load(tmp_path / name) for name in components}
    again = TrainedModel.load(tmp_path / "hybrid", loaded)
    histories = DATASET.histories()
    for stage in ("tuned", "evaluated", "model"):
        assert np.array_equal(getattr(again, stage).score(histories), getattr(blend, stage).score(histories))
    assert (again.report, again.score_map, again.usage) == (blend.report, blend.score_map, blend.usage)


def test_a_blend_learns_from_the_past_and_serves_with_the_present(components: dict[str, TrainedModel]) -> None:
    blend = train_family("hybrid", DATASET, options=OPTIONS, components=components)
    for stage in ("tuned", "evaluated", "model"):
        assert getattr(blend, stage).components == {name: getattr(one, stage) for name, one in components.items()}
    assert "kept_component" in blend.report.notes


def test_an_earlier_configuration_is_measured_on_the_new_window(components: dict[str, TrainedModel]) -> None:
    split = temporal_split(DATASET)
    config = load_config("popularity")
    same = evaluate_family("popularity", split, options=OPTIONS, config=config).report
    config = PopularityConfig(half_life_days=0.01)
    other = evaluate_family("popularity", split, options=OPTIONS, config=config).report
    assert same.metric("auc") == components["popularity"].report.metric("auc")
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


def test_a_blend_learns_from_the_events_that_validate_where_users_last_events_are_held_out() -> None:
    split = leave_one_out_split(DATASET)
    components = {
        name: train_family(name, DATASET, options=OPTIONS, split=split) for name in ("popularity", "collaborative")
    }
    blend = train_family("hybrid", DATASET, options=OPTIONS, components=components, split=split)
    assert blend.report.protocol.startswith("leave-one-out")
    assert blend.report.notes["ranker_questions"] == len(split.validation)
