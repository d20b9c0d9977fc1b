"""Explanations are true of every family: an item's score falls without the item that is said to weigh most in it."""

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.interaction_types import TYPE_WEIGHTS
from feature_store.online import Histories
from tests.fixtures.movielens_dataset import movielens_100k
from tests.training.catalogue import N_ITEMS, histories
from tests.training.test_model_contract import ENSEMBLE_MEMBERS, EXACT, FAMILIES, fitted, without_item
from tests.training.test_movielens_rankings import served
from training.config import load_config
from training.models.contract import Positions, Recommender, RuntimeOptions
from training.models.lists import NO_ITEM
from training.models.registry import family_class

pytestmark = pytest.mark.fit

ATTRIBUTED = [name for name in FAMILIES if name not in EXACT]
"""Families whose evidence is an attribution: given where occlusion on a held-out sample agrees often enough."""
REQUIRED = 0.95
LISTED = 5

Event = tuple[int, int, float]  # item, type, value
events = st.tuples(st.integers(0, N_ITEMS - 1), st.integers(0, len(TYPE_WEIGHTS) - 1), st.floats(0.25, 1.0, width=16))
drawn_histories = st.lists(events, min_size=1, max_size=30)


def of_events(rows: list[list[Event]]) -> Histories:
    """Histories of these events, a day apart."""
    base = histories(*([event[0] for event in row] for row in rows))
    flat = [event for row in rows for event in row]
    return replace(
        base,
        types=np.array([event[1] for event in flat], np.int8),
        weights=np.array([event[2] for event in flat], np.float32),
    )


def first_evidence(model: Recommender, queries: Histories, items: Positions) -> Positions:
    """The history item that weighs most in each item of each list, int32 [batch, k]; NO_ITEM where none is given."""
    return model.evidence(queries, items, top=1)[:, :, 0]


def fall(model: Recommender, queries: Histories, items: Positions) -> npt.NDArray[np.float64]:
    """What each listed item with evidence loses in raw score without its first evidence, float64 [n]."""
    named = first_evidence(model, queries, items)
    rows, columns = np.nonzero(named != NO_ITEM)
    whole, listed = queries.take(rows), items[rows, columns]
    less = without_item(whole, named[rows, columns])
    places = np.arange(len(rows))
    return model.score(whole)[places, listed].astype(np.float64) - model.score(less)[places, listed]


@pytest.mark.parametrize("family", EXACT)
@given(history=drawn_histories, item=st.integers(0, N_ITEMS - 1))
@settings(max_examples=60, deadline=None)
def test_exact_evidence_is_true_without_exception(family: str, history: list[Event], item: int) -> None:
    model, queries = fitted(family), of_events([history])
    assert (fall(model, queries, model.recommend(queries, LISTED).items) > 0).all()
    claimed = model.explain(queries, np.array([item], np.int32))[0].values
    if len(claimed) and claimed[0] > 1e-4:  # of any item, as far as float32 tells two scores apart
        assert (fall(model, queries, np.array([[item]], np.int32)) > 0).all()


@pytest.mark.parametrize("family", ATTRIBUTED)
@given(drawn=st.lists(drawn_histories, min_size=30, max_size=40))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_attributed_evidence_is_as_true_as_it_was_measured_to_be(family: str, drawn: list[list[Event]]) -> None:
    model, queries = fitted(family), of_events(drawn)
    fallen = fall(model, queries, model.recommend(queries, LISTED).items) > 0
    assert not len(fallen) or fallen.mean() >= REQUIRED


@cache
def on_movielens(family: str) -> Recommender:
    """The family fitted on MovieLens 100K as it serves; the sequential one small and short, so that it is quick."""
    if family != "deep-learning":
        return served(family)
    few = {"epochs": 3, "refit_epochs": 0, "batch_size": 32, "learning_rate": 4e-3}
    config = load_config(family, {"dimensions": 48, "blocks": 1, **few})
    return family_class(family)(config).fit(movielens_100k(), RuntimeOptions(threads=2, max_seconds=300))


@cache
def lists_on_movielens(family: str) -> tuple[Histories, Positions]:
    """Real histories of 200 users, and the ten best films that each has not seen."""
    dataset = movielens_100k()
    users = np.sort(np.random.default_rng(0).choice(dataset.n_users, 200, replace=False)).astype(np.int32)
    queries = dataset.histories(users)
    return queries, on_movielens(family).recommend(queries, 10, dataset.seen[users].toarray()).items


@pytest.mark.parametrize("family", ENSEMBLE_MEMBERS)
def test_real_evidence_is_true(family: str) -> None:
    fallen = fall(on_movielens(family), *lists_on_movielens(family)) > 0
    assert fallen.all() if family in EXACT else fallen.mean() >= REQUIRED


@pytest.mark.parametrize("family", ENSEMBLE_MEMBERS)
def test_four_of_five_items_for_warm_users_carry_evidence(family: str) -> None:
    queries, items = lists_on_movielens(family)
    assert (first_evidence(on_movielens(family), queries, items) != NO_ITEM).mean() >= 0.8


def test_a_list_that_is_the_same_for_everybody_names_nobodys_items() -> None:
    queries, items = lists_on_movielens("popularity")
    assert (first_evidence(on_movielens("popularity"), queries, items) == NO_ITEM).all()
