"""Data that no one would choose and every installation meets: each family ranks sensibly or says what it lacks."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_store.online import Histories
from tests.training.catalogue import histories
from training.config import load_config
from training.data.dataset import Dataset, from_events
from training.data.splits import leave_one_out_split, temporal_split
from training.evaluation.calibration import fit_score_map
from training.evaluation.report import EvaluationReport, evaluate_model
from training.models.contract import Ensemble, Recommender, RuntimeOptions
from training.models.lists import NO_ITEM
from training.models.registry import families, family_class, load_model, save_model
from training.train import TrainedModel, evaluate_family, train_family

pytestmark = pytest.mark.fit

FAMILIES = families()
PLAIN = [name for name in FAMILIES if not issubclass(family_class(name), Ensemble)]
ENSEMBLES = [name for name in FAMILIES if name not in PLAIN]
OPTIONS = RuntimeOptions(threads=1, max_seconds=20)
HOUR = 3_600_000_000
K = 10
Event = tuple[str, str, int]  # user, item, hours


def world(events: list[Event], metadata: dict[str, Any] | list[str], values: float | None = None) -> Dataset:
    """metadata: by item id, or the ids of items that have none."""
    described = metadata if isinstance(metadata, dict) else {item: {} for item in metadata}
    frame = pd.DataFrame(events, columns=["user_id", "item_id", "timestamp"])
    frame["timestamp"] = frame["timestamp"].astype("int64") * HOUR
    if values is not None:
        frame["value"] = values
    items = pd.DataFrame({"item_id": list(described), "metadata": list(described.values())})
    return from_events(frame, items)


def circle(users: int, items: int, each: int = 4) -> list[Event]:
    """User u takes `each` neighbouring items from u on, an event an hour."""
    return [(f"user-{u}", f"item-{(u + step) % items}", u + step * users) for u in range(users) for step in range(each)]


def names(n: int) -> list[str]:
    return [f"item-{number}" for number in range(n)]


ODD_METADATA: list[dict[str, Any]] = [
    {"title": "plain words here", "genres": ["a", "b"], "price": 3.5},
    {"title": float("nan"), "genres": None, "price": float("inf")},
    {"title": 12, "genres": "a", "price": "3.5"},
    {"title": ["a list", None, {"of": {"things": -float("inf")}}], "genres": [[["deep"]]], "price": True},
    {"title": "", "genres": [], "price": 10**400},
    {"title": "word " * 20_000, "genres": {"a": 1}, "price": -0.0},
    {"title": b"bytes", "genres": {"x", "y"}, "price": Decimal("NaN")},
    {"title": date(2020, 1, 2), "genres": np.float64("nan"), "price": np.int64(7)},
    {},
    {"title": "plain words there", "genres": ["a"], "price": 1e308, "": "nameless", "a.b": 1, "a": {"b": 2}},
    {"title": "\u202e \U0001f600 \u0000", "genres": ["A", "a ", "a"], "price": "1e999"},
    {"title": "1999-13-45", "genres": [True, 1, "1", 1.0], "price": [1, float("nan"), "x"]},
]

WORLDS: dict[str, Callable[[], Dataset]] = {
    "one event": lambda: world([("ann", "item-0", 1)], names(5)),
    "one event a user": lambda: world([(f"user-{u}", f"item-{u % 6}", u) for u in range(30)], names(8)),
    "one moment": lambda: world([(user, item, 5) for user, item, _ in circle(30, 12)], names(12)),
    "one item": lambda: world([(f"user-{u}", "item-0", u) for u in range(30)], names(1)),
    "one item, many times": lambda: world([(f"user-{u % 6}", "item-0", u) for u in range(60)], names(1)),
    "fewer items than k": lambda: world(circle(30, 3, 2), names(3)),
    "items nobody touched": lambda: world(circle(30, 12), names(40)),
    "odd metadata": lambda: world(circle(30, 12), dict(zip(names(12), ODD_METADATA, strict=True))),
    "events of no weight": lambda: world(circle(30, 12), names(12), values=0.0),
    "one user": lambda: world([("ann", f"item-{n % 12}", n) for n in range(500)], names(12)),
    "positions for times": lambda: world(
        [(f"user-{u}", f"item-{(u + n) % 12}", n) for u in range(30) for n in range(5)], names(12)
    ),
}


@cache
def dataset(name: str) -> Dataset:
    return WORLDS[name]()


@cache
def fitted(family: str, name: str) -> Recommender:
    return family_class(family)(load_config(family)).fit(dataset(name), OPTIONS)


@cache
def trained(family: str, name: str) -> TrainedModel:
    base_models = {member: trained(member, name) for member in PLAIN} if family in ENSEMBLES else None
    return train_family(family, dataset(name), options=OPTIONS, base_models=base_models)


def queries_of(n_items: int) -> Histories:
    """Nobody, somebody new, and people of one, of all, and of one item again and again."""
    return histories([], [0], [n_items - 1], list(range(n_items)), [0] * 30)


def check(model: Recommender, metadata: dict[str, Any]) -> None:
    """Whatever it learned from, a model keeps the contract."""
    n = model.n_items
    queries = queries_of(n)
    scores = model.score(queries)
    assert scores.shape == (5, n) and np.isfinite(scores).all()
    assert model.score(histories()).shape == (0, n)
    ranked = model.recommend(queries, K)
    assert ranked.items.shape == (5, min(K, n))
    assert all(len(set(row)) == len(row) and min(row) >= 0 for row in ranked.items.tolist())
    evidence = model.evidence(queries, ranked.items)
    for row, found in enumerate(evidence.tolist()):
        mine = set(queries.items[queries.offsets[row] : queries.offsets[row + 1]].tolist())
        assert {item for one in found for item in one} <= {*mine, NO_ITEM}
    for found in model.explain(queries, ranked.items[:, 0]):
        assert np.isfinite(found.values).all()
    assert np.isfinite(model.item_vectors()).all()
    assert 0 not in model.similar(np.array([0], np.int32), K).items
    wider = model.with_items(np.array([n], np.int32), [metadata]).score(queries_of(n + 1))
    assert wider.shape == (5, n + 1) and np.isfinite(wider).all()
    assert ((score_map := fit_score_map(model, queries))(scores) <= 1).all() and score_map.scale > 0


def check_figures(report: EvaluationReport) -> None:
    figures = [value for one in report.results for each in one.metrics.values() for value in each.model_dump().values()]
    assert all(np.isfinite(value) for value in figures if value is not None)
    assert "NaN" not in report.model_dump_json()


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("family", PLAIN)
def test_a_family_learns_from_odd_data_what_there_is(family: str, name: str, tmp_path: Path) -> None:
    model = fitted(family, name)
    check(model, ODD_METADATA[1])
    save_model(model, tmp_path)
    queries = queries_of(model.n_items)
    np.testing.assert_array_equal(load_model(tmp_path).score(queries), model.score(queries))


TIMELESS = {"one event": "at least 3 events", "one moment": "different times", "positions for times": "different times"}
"""Worlds that cannot be cut in time, and what is said of them."""


@pytest.mark.parametrize("name", [name for name in WORLDS if name not in TIMELESS])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_on_odd_data_serves_and_reports_no_nan(family: str, name: str) -> None:
    done = trained(family, name)
    check(done.model, ODD_METADATA[3])
    check_figures(done.report)
    assert np.isfinite([done.score_map.center, done.score_map.scale]).all()


@pytest.mark.parametrize("name", TIMELESS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_says_that_data_without_time_cannot_be_split_by_it(family: str, name: str) -> None:
    with pytest.raises(ValueError, match=TIMELESS[name]):
        train_family(family, dataset(name), options=OPTIONS)


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("family", PLAIN)
def test_no_figure_of_leave_one_out_is_nan(family: str, name: str) -> None:
    split = leave_one_out_split(dataset(name))
    report = evaluate_model(fitted(family, name), split, n_resamples=2)
    check_figures(report)
    assert bool(report.results) == bool(len(split.test))


def test_a_window_of_strangers_alone_measures_them_alone() -> None:
    split = temporal_split(dataset("one event a user"))
    assert (split.test.histories.lengths == 0).all()
    report = trained("popularity", "one event a user").report
    assert report.n_users("all") == len(split.test) > 0
    assert report.n_users("warm_users") == 0


def test_events_of_no_weight_make_no_item_popular() -> None:
    cold = fitted("collaborative", "events of no weight").score(histories([]))
    assert not cold.any()


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("family", ENSEMBLES)
def test_an_ensemble_learns_from_held_out_events_or_says_that_there_are_none(family: str, name: str) -> None:
    split = leave_one_out_split(dataset(name))
    base_models = {
        member: evaluate_family(member, split, options=OPTIONS) for member in ("collaborative", "popularity")
    }
    if not len(split.validation):
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            evaluate_family(family, split, options=OPTIONS, base_models=base_models)
        return
    check_figures(evaluate_family(family, split, options=OPTIONS, base_models=base_models).report)
