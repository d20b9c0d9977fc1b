"""`python -m training evaluate`, as a person calls it on files of their own."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from feature_store.columns import INTERACTION_TYPES
from serving.contracts.messages import ALGORITHMS
from tests.training.catalogue import build_dataset
from training.cli import app
from training.config import load_config
from training.data.dataset import Dataset
from training.data.splits import temporal_split
from training.evaluation.comparison import BASELINES, FAMILIES
from training.evaluation.metrics import METRICS
from training.evaluation.rankings import compare, rank_queries
from training.models.contract import RuntimeOptions
from training.train import train_family

pytestmark = pytest.mark.fit

LISTS = ("coverage@10", "novelty", "gini", "intra_list_diversity")
QUICK = "popularity,item-knn,collaborative"


def frame_of(dataset: Dataset) -> pd.DataFrame:
    events = dataset.interactions
    return pd.DataFrame(
        {
            "user_id": [f"user-{user:03}" for user in events.users],
            "item_id": dataset.items.ids[events.items],
            "timestamp": pd.to_datetime(events.timestamps, unit="us", utc=True),
            "interaction_type": [INTERACTION_TYPES[code] for code in events.types],
        }
    )


def items_of(dataset: Dataset) -> pd.DataFrame:
    return pd.DataFrame(
        {"item_id": dataset.items.ids, "metadata": [json.dumps(each) for each in dataset.items.metadata]}
    )


@pytest.fixture(autouse=True)
def _threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets in its own process ends with each test."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    frame_of(build_dataset()).to_csv(folder / "interactions.csv", index=False)
    items_of(build_dataset()).to_parquet(folder / "items.parquet")
    return folder


def evaluate(folder: Path, *arguments: str, models: str = QUICK) -> Result:
    files = ("--interactions", str(folder / "interactions.csv"), "--out", str(folder / "out.json"))
    return CliRunner().invoke(app, ["evaluate", *files, "--models", models, "--threads", "1", *arguments])


def written(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out.json").read_text(), parse_constant=pytest.fail)
    return found


def numbers(found: dict[str, Any]) -> Iterator[float]:
    for row in found["results"]:
        yield from (row["fit_seconds"], row["recommend_seconds"], row["peak_mb"])
        for estimate in row["metrics"].values():
            yield from estimate.values()


def test_the_families_are_those_of_the_api_and_the_baselines() -> None:
    assert set(FAMILIES) == {*ALGORITHMS, *BASELINES}


def test_figures_are_written_and_printed_with_intervals_for_every_segment(world: Path) -> None:
    result = evaluate(world, "--items", str(world / "items.parquet"), models=QUICK + ",content-based")
    assert result.exit_code == 0, result.output
    found = written(world)
    assert set(found) == {
        *("protocol", "split_hash", "seed", "results", "skipped", "paired_comparisons", "searches", "without_refit"),
    }
    assert found["searches"] == found["without_refit"] == []
    assert found["skipped"] == [] and found["protocol"].startswith("temporal") and found["split_hash"] in result.stdout
    for row in found["results"]:
        assert set(row) == {"model", "segment", "metrics", "fit_seconds", "recommend_seconds", "peak_mb"}
        assert set(row["metrics"]) == {*METRICS, *LISTS}
        for estimate in row["metrics"].values():
            assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    segments = {(row["model"], row["segment"]) for row in found["results"]}
    assert {(name, "warm") for name in (*QUICK.split(","), "content-based")} <= segments
    assert all(math.isfinite(number) for number in numbers(found))
    assert "random" in result.stdout and "recall@20" in result.stdout


def test_it_says_who_beats_the_baselines_and_whether_the_users_tell(world: Path) -> None:
    result = evaluate(world)
    found = {
        (each["one"], each["other"]): each for each in written(world)["paired_comparisons"] if each["segment"] == "all"
    }
    assert set(found) == {("item-knn", "popularity"), ("collaborative", "popularity"), ("collaborative", "item-knn")}
    reached = {
        row["model"]: row["metrics"]["ndcg@10"]["mean"] for row in written(world)["results"] if row["segment"] == "all"
    }
    gain = found["collaborative", "popularity"]
    assert gain["difference"]["mean"] == pytest.approx(reached["collaborative"] - reached["popularity"])
    assert gain["difference"]["low"] > 0 and gain["metric"] == "ndcg@10"
    (line,) = [line for line in result.stdout.splitlines() if "collaborative - popularity" in line]
    assert "better" in line and f"{gain['difference']['low']:+.4f}" in line


def test_the_figures_are_those_of_a_training_on_the_same_data(world: Path) -> None:
    evaluate(world, "--items", str(world / "items.parquet"))
    dataset = build_dataset()
    trained = train_family("collaborative", dataset, options=RuntimeOptions(threads=1))
    row = next(row for row in written(world)["results"] if (row["model"], row["segment"]) == ("collaborative", "all"))
    for name in ("ndcg@10", "auc", "novelty", "gini"):
        assert row["metrics"][name]["mean"] == pytest.approx(trained.report.metric(name), rel=0.02)  # ties aside


def test_a_search_before_the_evaluation_finds_what_a_file_hides(world: Path, tmp_path: Path) -> None:
    (tmp_path / "item-knn.yaml").write_text("{neighbours: 20, shrinkage: 300.0, half_life: 5.0}")
    search = ("--search", "0.3", "--configs", str(tmp_path), "--keep", str(tmp_path / "kept"))
    result = evaluate(world, *search, models="item-knn,popularity")
    assert result.exit_code == 0, result.output
    found = {each["model"]: each for each in written(world)["searches"]}
    assert set(found) == {"item-knn", "popularity"} and sum(each["minutes"] for each in found.values()) < 1
    knn = found["item-knn"]
    assert knn["value"] > knn["base_value"] and knn["adopted"] == (knn["improvement"]["low"] > 0)
    assert f"item-knn: {knn['summary']}" in result.stderr
    config = load_config("item-knn", knn["config"])
    model = train_family("item-knn", build_dataset(), options=RuntimeOptions(threads=1), config=config)
    row = next(row for row in written(world)["results"] if (row["model"], row["segment"]) == ("item-knn", "all"))
    assert row["metrics"]["ndcg@10"]["mean"] == pytest.approx(model.report.metric("ndcg@10"), rel=0.02)  # ties aside
    before = written(world)["searches"]
    evaluate(world, *search, models="item-knn,popularity")
    assert written(world)["searches"] == before  # what was searched is kept


def test_without_items_what_reads_metadata_is_skipped_and_the_ensemble_goes_on(world: Path) -> None:
    (world / "configs").mkdir(exist_ok=True)
    (world / "configs" / "deep-learning.yaml").write_text(
        "{dimensions: 8, heads: 1, blocks: 1, max_length: 10, epochs: 1, refit_epochs: 1}"
    )
    result = evaluate(world, "--configs", str(world / "configs"), models="content-based,collaborative,hybrid")
    assert result.exit_code == 0, result.output
    found = written(world)
    assert [each["model"] for each in found["skipped"]] == ["content-based"]
    assert "metadata" in found["skipped"][0]["reason"]
    assert {row["model"] for row in found["results"]} == {"collaborative", "hybrid"}
    told = {(each["one"], each["other"], each["segment"]) for each in found["paired_comparisons"]}
    assert told == {("hybrid", "collaborative", "all")}  # its best component, and nobody is cold


def test_leave_one_out_takes_positions_for_times(world: Path, tmp_path: Path) -> None:
    frame = frame_of(build_dataset())
    frame["timestamp"] = frame.groupby("user_id").cumcount()
    frame.to_csv(tmp_path / "interactions.csv", index=False)
    result = evaluate(tmp_path, "--protocol", "leave-one-out")
    assert result.exit_code == 0, result.output
    found = written(tmp_path)
    assert found["protocol"].startswith("leave-one-out") and "positions" in result.stderr
    assert {row["segment"] for row in found["results"]} == {"all", "warm"}
    assert [one["model"] for one in found["without_refit"]] == ["popularity", "item-knn", "collaborative"]
    assert "without the refit on validation events" in result.stdout


def test_repeats_are_told_from_what_is_new_where_both_may_be_recommended(world: Path) -> None:
    result = evaluate(world, "--exclude-seen", "none", models="popularity")
    assert result.exit_code == 0, result.output
    assert {"repeat", "new"} <= {row["segment"] for row in written(world)["results"]}


def test_kept_models_are_taken_by_the_same_run_and_by_no_other(world: Path, tmp_path: Path) -> None:
    keep = ("--keep", str(tmp_path / "kept"))
    first = evaluate(world, *keep, models="popularity,collaborative")
    figures = written(world)
    assert first.exit_code == 0
    kept = {folder.name: (folder / "key.json").stat().st_mtime_ns for folder in (tmp_path / "kept").iterdir()}
    assert evaluate(world, *keep, models="popularity,collaborative").exit_code == 0
    rerun = written(world)
    for one, other in zip(figures["results"], rerun["results"], strict=True):
        assert (one["metrics"], one["fit_seconds"]) == (other["metrics"], other["fit_seconds"])
    assert {folder.name: (folder / "key.json").stat().st_mtime_ns for folder in (tmp_path / "kept").iterdir()} == kept
    evaluate(world, *keep, "--seed", "1", models="popularity,collaborative")
    assert len(list((tmp_path / "kept").iterdir())) == 2 * len(kept)


def test_a_folder_of_configurations_wins_over_the_shipped_ones(world: Path, tmp_path: Path) -> None:
    evaluate(world, models="popularity")
    shipped = written(world)["results"][0]["metrics"]
    (tmp_path / "popularity.yaml").write_text("half_life_days: 0.001")
    evaluate(world, "--configs", str(tmp_path), models="popularity")
    assert written(world)["results"][0]["metrics"] != shipped
    (tmp_path / "popularity.yaml").write_text("half_lives: 3")
    refused = evaluate(world, "--configs", str(tmp_path), models="popularity")
    assert refused.exit_code == 2 and "half_lives" in refused.stderr


def test_an_unknown_model_is_named(world: Path) -> None:
    refused = evaluate(world, models="popularity,oracle")
    assert refused.exit_code == 2 and "oracle" in refused.stderr and refused.stderr.count("\n") == 1


def test_two_models_compare_in_pairs_on_the_queries_of_one_window() -> None:
    dataset = build_dataset()
    split = temporal_split(dataset)
    options = RuntimeOptions(threads=1)
    one, other = (train_family(name, dataset, options=options, split=split) for name in ("collaborative", "popularity"))
    found = compare(one.evaluated, other.evaluated, split.test)
    means = [each.report.metric("ndcg@10") for each in (one, other)]
    assert means[0] is not None and means[1] is not None
    assert found.mean == pytest.approx(means[0] - means[1])
    assert found.low is not None and found.low > 0  # it is better, and the users say so
    back = compare(other.evaluated, one.evaluated, split.test)
    assert (back.mean, back.low, back.high) == pytest.approx((-found.mean, -(found.high or 0), -found.low))
    assert compare(one.evaluated, one.evaluated, split.test).high == 0
    with pytest.raises(ValueError, match="do not belong"):
        compare(rank_queries(one.evaluated, split.validation), other.evaluated, split.test)
