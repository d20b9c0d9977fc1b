"""Promises of the benchmark of quality: what peers are told, how they are measured, and that nothing is done twice."""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.quality.datasets import RUNS, Files, Run, files_of
from tests.benchmarks.quality.environment import LOCK, PEERS
from tests.benchmarks.quality.exchange import Replay, export
from tests.benchmarks.quality.families import measure_families
from tests.benchmarks.quality.page import after_search, render
from tests.benchmarks.quality.peers import Bounds, measure_peer, peers, random_order, space_of
from tests.fixtures.movielens_dataset import movielens_100k
from training.config import load_config
from training.data.loaders import load_dataset_files
from training.data.splits import Split, leave_one_out_split, temporal_split
from training.evaluation.metrics import METRICS, per_user_metrics, target_ranks
from training.evaluation.report import RANDOM, evaluate_model
from training.models.contract import RuntimeOptions
from training.models.registry import family_class

HISTORIES = {"ann": "abcd", "bob": "bcda", "cid": "cabe"}
"""Last letters test, the ones before them validate: d is ann's target after a, b, c."""


def tiny_files(folder: Path) -> Files:
    files = Files(folder / "interactions.csv", folder / "items.csv")
    rows = [(user, item, place) for user, items in HISTORIES.items() for place, item in enumerate(items)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(files.interactions, index=False)
    pd.DataFrame({"item_id": list("abcdef"), "title": list("abcdef")}).to_csv(files.items, index=False)
    return files


@pytest.fixture
def split(tmp_path: Path) -> Split:
    files = tiny_files(tmp_path)
    return leave_one_out_split(load_dataset_files(files.interactions, files.items).dataset)


@pytest.fixture(scope="module")
def movielens_split() -> Split:
    return temporal_split(movielens_100k())


def this_python() -> Path:
    return Path(sys.executable)


def no_python() -> Path:
    raise AssertionError("nothing was to run")


def of_all(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {name: one["mean"] for row in rows if row["segment"] == "all" for name, one in row["metrics"].items()}


def test_peers_are_told_the_past_and_the_evaluated_users_but_never_the_targets_of_the_test(
    split: Split, tmp_path: Path
) -> None:
    folder = export(split, tmp_path / "queries")
    tables = {path.stem: pq.read_table(path).to_pydict() for path in folder.glob("*.parquet")}
    assert set(tables) == {
        *("train", "before_test", "validation_users", "validation_targets", "validation_masked", "test_users"),
    }
    # a..f are items 0..5. Of ann (0), bob (1) and cid (2) two events train and the third validates.
    assert tables["train"]["user"] == [0, 0, 1, 1, 2, 2]
    assert tables["train"]["item"] == [0, 1, 1, 2, 2, 0]
    assert tables["before_test"]["item"] == [0, 1, 2, 1, 2, 3, 2, 0, 1]
    assert tables["test_users"]["user"] == [0, 1, 2]
    assert tables["validation_targets"] == {"row": [0, 1, 2], "item": [2, 3, 1]}
    assert sorted(zip(*tables["validation_masked"].values(), strict=True)) == [
        *((0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2)),
    ]


def test_a_ranking_made_elsewhere_is_measured_as_it_is_by_hand(split: Split) -> None:
    scores = np.array(
        [
            [9, 9, 9, 5, 7, 6],  # ann: a, b, c are masked; e, f, then d: rank 3
            [4, 9, 9, 9, 4, 1],  # bob: b, c, d are masked; a and e tie, a stands first: rank 1
            [0, 0, 0, 8, 7, 9],  # cid: a, b, c are masked; f, d, then e: rank 3
        ],
        dtype=np.float32,
    )
    report = evaluate_model(Replay("peer:hand", scores), split)
    assert report.results[0].model == "peer:hand"
    assert report.metric("ndcg@10") == pytest.approx((1 / math.log2(4) + 1 + 1 / math.log2(4)) / 3)
    assert report.metric("mrr") == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert report.metric("hit_rate@10") == 1
    # Of the two items that are no target, ann and cid rank both before it; bob ranks one level and one below.
    assert report.metric("auc") == pytest.approx((0 + 0.75 + 0) / 3)


@pytest.mark.fit
def test_our_own_model_measures_the_same_through_exported_scores(movielens_split: Split, tmp_path: Path) -> None:
    for family in ("item-knn", "popularity"):
        model = family_class(family)(load_config(family)).fit(movielens_split.before_test, RuntimeOptions(threads=1))
        np.save(tmp_path / "scores.npy", model.score(movielens_split.test.histories))
        replayed = evaluate_model(Replay.read(family, tmp_path / "scores.npy", movielens_split), movielens_split)
        direct = evaluate_model(model, movielens_split)
        assert {result.segment for result in direct.results} >= {"all", "warm", "cold_users", "cold_items"}
        assert [(one.segment, one.metrics) for one in replayed.results] == [
            (one.segment, one.metrics) for one in direct.results
        ]


def test_scores_of_other_queries_are_refused(split: Split, tmp_path: Path) -> None:
    for wrong in (np.zeros((3, 5), np.float32), np.zeros((4, 6), np.float32), np.zeros((3, 6))):
        np.save(tmp_path / "scores.npy", wrong)
        with pytest.raises(ValueError, match=r"not float32 \(3, 6\)"):
            Replay.read("peer", tmp_path / "scores.npy", split)
    replay = Replay("peer", np.zeros((3, 6), np.float32))
    replay.score(split.test.histories)
    with pytest.raises(ValueError, match="more queries than the 3"):
        replay.score(split.test.histories)


@pytest.mark.service
def test_a_peer_is_tuned_fitted_and_measured_once(split: Split, tmp_path: Path) -> None:
    found = measure_peer("popularity", split, tmp_path, this_python, Bounds())
    assert found is not None
    # Before the test: a 2, b 3, c 3, d 1, e and f none. Ann is left with d, e, f: d is first. Bob with a, e, f: a is
    # first. Cid with d, e, f: d, then e and f level, where e stands first.
    assert of_all(found["rows"])["ndcg@10"] == pytest.approx((1 + 1 + 1 / math.log2(3)) / 3)
    assert found["about"]["config"] == {"days": None}
    assert found["about"]["tried"] == 1
    assert {row["model"] for row in found["rows"]} == {"peer:popularity"}
    assert measure_peer("popularity", split, tmp_path, no_python, Bounds())["rows"] == found["rows"]
    with pytest.raises(AssertionError, match="nothing was to run"):
        measure_peer("popularity", split, tmp_path, no_python, Bounds(seed=1))


@pytest.mark.service
def test_an_interrupted_search_goes_on_where_it_was(movielens_split: Split, tmp_path: Path) -> None:
    first = measure_peer("popularity", movielens_split, tmp_path, this_python, Bounds())
    (result,) = tmp_path.glob("*/popularity-*/result.json")
    tuning = result.with_name("tuning.jsonl")
    lines = tuning.read_text().splitlines()
    assert len(lines) == len(space_of("popularity", movielens_split)["days"])
    best = max(map(json.loads, lines), key=lambda line: line["ndcg@10"])
    assert first["about"]["config"] == best["config"]
    # What was tried stays, though it says what a search would not: the winner had reached nothing.
    kept = [json.dumps({**best, "ndcg@10": 0.0}), *(line for line in lines if json.loads(line) != best)]
    tuning.write_text("\n".join(kept[:3]) + "\n")
    result.unlink()
    second = measure_peer("popularity", movielens_split, tmp_path, this_python, Bounds())
    assert tuning.read_text().splitlines()[:3] == kept[:3]
    assert second["about"]["tried"] == len(lines)
    assert second["about"]["config"] != best["config"]


@pytest.mark.service
def test_what_a_person_had_most_leads_where_repeats_count(movielens_split: Split, tmp_path: Path) -> None:
    assert measure_peer("personal-popularity", movielens_split, tmp_path, no_python, Bounds()) is None
    times = pd.date_range("2024-01-01", periods=10, tz="UTC")
    # Ann takes c three times and d once, bob takes a, b and a; then the windows: ann c, ann c.
    items, users = list("cdcacbcacc"), ["ann", "ann", "ann", "bob", "ann", "bob", "ann", "bob", "ann", "ann"]
    path = tmp_path / "events.parquet"
    pd.DataFrame({"user_id": users, "item_id": items, "timestamp": times}).to_parquet(path)
    split = temporal_split(load_dataset_files(path, None).dataset, "none")
    found = measure_peer("personal-popularity", split, tmp_path, this_python, Bounds())
    (folder,) = tmp_path.glob("*/personal-popularity-*")
    scores = np.load(folder / "scores.npy", allow_pickle=False)
    assert np.argsort(-scores[0]).tolist() == [2, 3, 0, 1]  # c, d are ann's own; a is more popular than b
    assert of_all(found["rows"])["ndcg@10"] == 1
    assert {row["segment"] for row in found["rows"]} == {"all", "warm", "repeat"}


@pytest.mark.service
def test_a_peer_that_fails_says_where_its_words_are(split: Split, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"ease failed; its last words in .*log\.txt: no such library"):
        measure_peer("ease", split, tmp_path, lambda: broken, Bounds())


@given(seed=st.integers(0, 2**32 - 1), n_items=st.integers(3, 30))
def test_peers_choose_by_the_measure_that_judges_them(seed: int, n_items: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(n_items, dtype=np.float32), (4, 1)), axis=1)
    roles = rng.integers(0, 3, size=(4, n_items))
    roles[:, 0] = 1  # at least one target
    targets, masked = sp.csr_array(roles == 1), sp.csr_array(roles == 2)
    ours = per_user_metrics(target_ranks(scores, targets, masked))["ndcg@10"]
    theirs = _script("queries").ndcg(scores, sp.csr_matrix(targets), sp.csr_matrix(masked))
    np.testing.assert_allclose(theirs, ours)


@pytest.mark.service
def test_figures_of_an_earlier_evaluation_stand_in_for_a_fit_of_the_same_split(split: Split, tmp_path: Path) -> None:
    files = tiny_files(tmp_path)
    row = {"model": "popularity", "segment": "all", "metrics": {"ndcg@10": {"mean": 0.25, "low": 0.2, "high": 0.3}}}
    same, other = tmp_path / "same.json", tmp_path / "other.json"
    same.write_text(json.dumps({"split_hash": split.hash, "results": [row], "skipped": []}))
    other.write_text(json.dumps({"split_hash": "another", "results": [row], "skipped": []}))
    run = Run("tiny", "leave-one-out", "all")
    how = {"max_seconds": 60, "threads": 1, "seed": 0}
    taken = measure_families(["popularity"], run, files, split, tmp_path / "a", earlier=[same], **how)
    assert taken == {"results": [row], "searches": [], "without_refit": [], "skipped": []}
    fresh = measure_families(["popularity"], run, files, split, tmp_path / "b", earlier=[other], **how)
    # Our popularity counts late events more; what it reaches is what a direct evaluation of it does.
    model = family_class("popularity")(load_config("popularity")).fit(split.before_test, RuntimeOptions())
    assert of_all(fresh["results"])["ndcg@10"] == pytest.approx(evaluate_model(model, split).metric("ndcg@10"))
    # Without the refit it does not know the validation events, in which c, d and b were chosen.
    unaware = family_class("popularity")(model.config).fit(split.train, RuntimeOptions())
    (without,) = fresh["without_refit"]
    assert without["metrics"]["ndcg@10"]["mean"] == pytest.approx(evaluate_model(unaware, split).metric("ndcg@10"))


@pytest.mark.service
def test_families_are_also_measured_after_a_search_and_stand_beside_their_defaults(
    split: Split, tmp_path: Path
) -> None:
    how = {"max_seconds": 60, "threads": 1, "seed": 0}
    run, files, cache = Run("tiny", "leave-one-out", "all"), tiny_files(tmp_path), tmp_path / "cache"
    by_default = measure_families(["popularity"], run, files, split, cache, **how)
    assert by_default["searches"] == []
    searched = measure_families(["popularity"], run, files, split, cache, search_minutes=0.05, **how)
    assert [one["model"] for one in searched["searches"]] == ["popularity"]
    assert measure_families(["popularity"], run, files, split, cache, fit=False, **how) == by_default
    named = after_search(searched)
    assert {row["model"] for row in named["results"]} == {"popularity after a search"}


@pytest.mark.service
def test_what_was_not_measured_is_told_and_not_fitted(split: Split, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not measured yet"):
        measure_peer("popularity", split, tmp_path, no_python, Bounds(), fit=False)
    how = {"max_seconds": 60, "threads": 1, "seed": 0}
    run, files, cache = Run("tiny", "leave-one-out", "all"), tiny_files(tmp_path), tmp_path / "cache"
    found = measure_families(["popularity"], run, files, split, cache, fit=False, **how)
    assert found["results"] == []
    assert found["skipped"] == [{"model": "popularity", "reason": "not measured yet"}]
    fresh = measure_families(["popularity"], run, files, split, cache, **how)
    second = measure_families(["popularity", "item-knn"], run, files, split, cache, fit=False, **how)
    assert second["results"] == fresh["results"] != []
    assert [one["model"] for one in second["skipped"]] == ["item-knn"]


@pytest.mark.service
def test_the_page_shows_best_first_and_parts_what_others_published(split: Split, tmp_path: Path) -> None:
    theirs = measure_peer("popularity", split, tmp_path, this_python, Bounds())
    ours = [{**row, "model": "collaborative"} for row in theirs["rows"]]
    for row in ours:
        row["metrics"] = {**row["metrics"], "ndcg@10": {"mean": 0.9999, "low": 0.9, "high": 1.0}}
    results = [*theirs["rows"], *ours, *random_order(split)]
    run = {
        **{"dataset": "tiny", "kind": "leave-one-out", "protocol": split.protocol, "split_hash": split.hash},
        **{"n_users": {"all": 300, "warm": 300, "cold_items": 3}, "results": results},
        **{"peers": [theirs["about"]], "skipped": [{"model": "hybrid", "reason": "too few queries"}]},
    }
    page = render(
        {
            **{"date": "2024-05-01", "machine": "2 cores", "versions": {"Python": "3.11"}, "runs": [run]},
            **{"tune_seconds": 240, "threads": 1, "seed": 0, "left_out": ["ml-1m: absent"]},
        }
    )
    measured, published = page.split("## Published by others")
    table = [line for line in measured.splitlines() if line.startswith(("| **", "| popularity (", "| *a random"))]
    # `warm` is nobody else than `all` here, `cold_items` are too few; the last row is of the searches.
    assert [line.split("|")[1].strip() for line in table] == [
        *("**collaborative**", "popularity (peer)", "*a random order, expected*", "popularity (peer)"),
    ]
    assert "| **collaborative** | .9999 [.9000, 1.0000] |" in measured
    assert "days all" in measured
    assert "- hybrid: too few queries" in measured
    assert "- ml-1m: absent" in measured
    assert (
        "| HSTU-large, run again with RecTools in a stable order | .2164 | .3642 | RecTools' documentation |"
        in published
    )
    assert "HSTU" not in measured


def test_the_page_keeps_what_was_not_measured_this_time_on_the_same_split() -> None:
    def row(model: str, ndcg: float) -> dict[str, Any]:
        metrics = {"ndcg@10": {"mean": ndcg, "low": ndcg, "high": ndcg}}
        return {"model": model, "segment": "all", "metrics": metrics, "fit_seconds": 12.0}

    def page_of(dataset: str, split_hash: str, rows: list[dict[str, Any]], skipped: list[str], page: str = "") -> str:
        run = {
            **{"dataset": dataset, "kind": "temporal", "protocol": "p", "split_hash": split_hash, "peers": []},
            **{"n_users": {"all": 300}, "results": [*rows, row(RANDOM, 0.01)]},
            **{"skipped": [{"model": model, "reason": "not measured yet"} for model in skipped]},
        }
        facts = {"date": "d", "machine": "m", "versions": {}, "tune_seconds": 1, "threads": 1, "seed": 0}
        return render({**facts, "runs": [run], "left_out": []}, page)

    def figures(page: str) -> list[tuple[str, str]]:
        lines = [line.split("|") for line in page.splitlines() if line.startswith(("| **", "| *a", "| ials"))]
        return [(line[1].strip(), line[2].strip()[:5]) for line in lines]

    first = page_of("tiny", "abc", [row("hybrid", 0.2), row("peer:ials", 0.15)], ["deep-learning"])
    second = page_of("tiny", "abc", [row("hybrid", 0.1), row("deep-learning", 0.3)], ["peer:ials", "item-knn"], first)
    chance = ("*a random order, expected*", ".0100")
    assert figures(second) == [
        ("**deep-learning**", ".3000"),
        ("ials (peer)", ".1500"),
        ("**hybrid**", ".1000"),
        chance,
    ]
    assert "- item-knn: not measured yet" in second and "ials: not" not in second
    assert figures(page_of("tiny", "def", [row("hybrid", 0.1)], [], first)) == [("**hybrid**", ".1000"), chance]
    other = page_of("other", "xyz", [row("hybrid", 0.4)], [], second)
    assert figures(other) == [*figures(second), ("**hybrid**", ".4000"), chance]
    assert other.count("## tiny, temporal") == other.count("## other, temporal") == 1


def test_files_of_a_wheel_are_read_as_an_import_reads_them(tmp_path: Path) -> None:
    files = files_of("movielens-100k", tmp_path, {})
    dataset = load_dataset_files(files.interactions, files.items).dataset
    events, expected = dataset.interactions, movielens_100k().interactions
    assert (len(events), dataset.n_users, dataset.n_items) == (100_000, 943, 1_682)
    assert np.array_equal(np.sort(events.timestamps), np.sort(expected.timestamps))
    assert np.array_equal(np.bincount(events.types), np.bincount(expected.types))
    toy_story = dataset.items.metadata[list(dataset.items.ids).index("1")]
    assert (toy_story["title"], toy_story["year"]) == ("Toy Story", 1995)
    written = files.interactions.stat().st_mtime_ns
    assert files_of("movielens-100k", tmp_path, {}).interactions.stat().st_mtime_ns == written


def test_movielens_1m_is_only_measured_where_somebody_says_where_it_is(tmp_path: Path) -> None:
    assert files_of("ml-1m", tmp_path, {}) is None
    with pytest.raises(FileNotFoundError, match=r"interactions\.parquet"):
        files_of("ml-1m", tmp_path, {"ml-1m": tmp_path})
    assert {run.dataset for run in RUNS} == {"movielens-100k", "complete-journey", "ml-1m", "amazon-toys"}


def test_a_search_tries_what_makes_sense_on_the_split(split: Split, movielens_split: Split) -> None:
    assert space_of("popularity", split) == {"days": [None]}
    assert len(space_of("popularity", movielens_split)["days"]) > 1
    assert space_of("sasrec", movielens_split) is None
    assert "epochs" in space_of("sasrec", split)
    assert space_of("personal-popularity", movielens_split) is None
    assert "weights" not in space_of("ials", split)


def test_every_peer_has_a_fit_and_every_fit_a_search() -> None:
    assert set(peers()) == {*_script("recommenders").FITS, "sasrec"}


def test_the_peers_lock_has_hashes_no_address_and_leaves_torch_to_the_machine() -> None:
    text = LOCK.read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    names = {entry.partition("==")[0] for entry in entries}
    assert names >= {"rectools", "pm-implicit", "lightfm-next", "numpy"}
    assert "://" not in text
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not {name for name in names if re.match(r"(torch|nvidia-.*|triton|cuda-.*)$", name)}


def test_the_peers_script_knows_nothing_of_ours() -> None:
    ours = re.compile(r"^\s*(import|from) (tests|training|feature_store|configs|serving|pipelines|api)\b", re.M)
    scripts = list(PEERS.glob("*.py"))
    assert len(scripts) == 4
    assert not [path for path in scripts if ours.search(path.read_text())]


def test_a_random_order_is_one_target_in_three_places(split: Split) -> None:
    rows = random_order(split)
    assert [(row["model"], row["segment"]) for row in rows] == [
        (RANDOM, "all"),
        (RANDOM, "warm"),
        (RANDOM, "cold_items"),
    ]
    # Three items are left to rank for everybody, and one of them is the target.
    assert rows[0]["metrics"]["ndcg@10"]["mean"] == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(4)) / 3)
    assert {row["segment"]: row["n_users"] for row in rows} == {"all": 3, "warm": 3, "cold_items": 1}


@pytest.mark.service
def test_every_metric_of_a_peer_is_measured(split: Split, tmp_path: Path) -> None:
    found = measure_peer("popularity", split, tmp_path, this_python, Bounds())
    assert set(of_all(found["rows"])) >= set(METRICS)


def _script(name: str) -> ModuleType:
    """A module of the peers, which import each other by bare names."""
    if name != "queries":
        sys.modules.setdefault("queries", _script("queries"))
    spec = importlib.util.spec_from_file_location(f"peers_{name}", PEERS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
