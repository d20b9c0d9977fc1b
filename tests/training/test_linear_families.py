"""The arithmetic of linear families, on numbers that can be checked by hand."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.online import Histories
from tests.training.catalogue import DAY, N_ITEMS, build_dataset, histories, items_of
from training.data.dataset import Dataset, Interactions, ItemTable
from training.models.collaborative.ease import ease_weights
from training.models.collaborative.model import Collaborative, CollaborativeConfig
from training.models.collaborative.transitions import transition_weights
from training.models.contract import RuntimeOptions
from training.models.kernels import Dense, Factors, Sparse, SparseFactors, strongest
from training.models.linear import Term
from training.models.lists import NO_ITEM
from training.models.neighbours import shrunk_cosines
from training.models.popularity import Popularity, PopularityConfig
from training.models.profiles import build_profiles

OPTIONS = RuntimeOptions(threads=1)


def test_a_profile_holds_each_item_once_at_its_newest_event() -> None:
    items = np.array([4, 2, 4, 1], np.int32)
    weights = np.array([1.0, 0.5, 1.0, 1.0], np.float32)
    times = np.arange(4, dtype=np.int64)
    rows = Histories(items, np.zeros(4, np.int8), weights, times, np.array([0, 3, 3, 4]))
    profiles = build_profiles(rows, 5, half_life=1)
    assert profiles.items.tolist() == [2, 4, 1]
    assert profiles.offsets.tolist() == [0, 2, 2, 3]
    np.testing.assert_allclose(profiles.weights, [np.log2(1.5) / 2, np.log2(3), 1], rtol=1e-6)


def test_histories_are_read_once_for_all_who_ask_and_checked_for_each() -> None:
    queries = histories([3, 1, 3])
    found = build_profiles(queries, 5)
    assert build_profiles(queries, 9) is found
    assert build_profiles(queries, 5, half_life=2) is found.decayed(2) is not found.decayed(3)
    with pytest.raises(IndexError):
        build_profiles(queries, 3)
    gone = weakref.ref(found)
    del queries, found
    gc.collect()
    assert gone() is None


def test_without_ageing_only_the_events_weights_count() -> None:
    profiles = build_profiles(histories([3, 1], [3]), 5)
    np.testing.assert_allclose(profiles.weights, np.log2(1.8), rtol=1e-6)
    np.testing.assert_allclose(
        profiles.matrix(3).toarray(), [[0, np.log2(1.8), 0], [0, 0, 0]], rtol=1e-6, err_msg="item 3 is left out"
    )


def test_ease_solves_its_regression() -> None:
    """The gradient of |X - XB|^2 + a|B|^2 vanishes off the diagonal, which is zero (Steck, 2019, eq. 8)."""
    matrix = sp.csr_array((np.random.default_rng(0).random((30, 6)) < 0.4).astype(np.float32))
    weights = ease_weights(matrix, 2.5).astype(np.float64)
    dense = matrix.toarray().astype(np.float64)
    gradient = dense.T @ (dense @ weights - dense) + 2.5 * weights
    np.fill_diagonal(gradient, 0)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    assert not np.diag(weights).any()


def test_transitions_solve_the_regression_of_every_event_on_those_before_it() -> None:
    """Held against least squares over rows written out one by one, half-lives 1 and 3 side by side."""
    rng = np.random.default_rng(2)
    lengths = [7, 1, 9, 8]
    users = np.repeat(np.arange(4, dtype=np.int32), lengths)
    places = np.concatenate([np.arange(length) for length in lengths]).astype(np.int64)
    items, weights = rng.integers(0, 5, 25).astype(np.int32), rng.random(25).astype(np.float32)
    events = Interactions(users, items, np.zeros(25, np.int8), weights, places)
    dataset = Dataset(events, ItemTable(np.arange(5).astype(object), [{}] * 5, np.ones(5, bool)), 4)
    found = np.vstack(transition_weights(dataset, [1.0, 3.0], 0.7, seed=0))
    mass = np.log2(1 + weights.astype(np.float64))
    before, after = np.zeros((25, 10)), np.zeros((25, 5))
    for event in range(25):
        after[event, items[event]] = mass[event]
        for lag in range(1, places[event] + 1):
            for block, half_life in enumerate((1.0, 3.0)):
                weight = mass[event - lag] * 0.5 ** ((lag - 1) / half_life)
                before[event, 5 * block + items[event - lag]] += weight
    ridge = np.vstack([before, np.sqrt(0.7) * np.eye(10)])
    expected, *_ = np.linalg.lstsq(ridge, np.vstack([after, np.zeros((10, 5))]), rcond=None)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_order_of_a_data_set_says_nothing_about_events_of_one_moment() -> None:
    """Everybody has items 0 and 1 at once, 0 listed first; no more is learned of one than of the other."""
    users = np.repeat(np.arange(400, dtype=np.int32), 2)
    items = np.tile(np.array([0, 1], np.int32), 400)
    events = Interactions(users, items, np.zeros(800, np.int8), np.ones(800, np.float32), np.zeros(800, np.int64))
    dataset = Dataset(events, ItemTable(np.arange(2).astype(object), [{}] * 2, np.ones(2, bool)), 400)
    (weights,) = transition_weights(dataset, [1.0], 1.0, seed=0)
    assert weights[0, 1] == pytest.approx(weights[1, 0], rel=0.01)


@pytest.mark.fit
def test_what_people_choose_again_speaks_for_itself() -> None:
    """A zero diagonal says nothing for what a user has had: it is put beside it where people choose items again."""
    data = build_dataset()
    events = data.interactions
    _, first = np.unique(events.users.astype(np.int64) * N_ITEMS + events.items, return_index=True)
    once = replace(data, interactions=events.where(np.sort(first)))
    twice = replace(once, interactions=once.interactions.where(np.repeat(np.arange(len(first)), 2)))
    liked = items_of(1)[:3].tolist()
    own, none = (
        Collaborative(CollaborativeConfig(decay_half_lives=(), repeat_weight=2))
        .fit(one, OPTIONS)
        .recommend(histories(liked), 3)
        for one in (twice, once)
    )
    assert set(own.items[0]) == set(liked)
    assert set(none.items[0]) != set(liked)


def test_recent_choices_count_by_their_sum_halved_every_ninety_days() -> None:
    queries = histories([3, 5, 3, 3])  # a day apart, 0.8 each
    found = build_profiles(queries, 9).recent(93 * DAY)
    assert found.items.tolist() == [5, 3]
    assert found.weights == pytest.approx([0.8 * 0.5 ** (92 / 90), 0.8 * (0.5 ** (93 / 90) + 0.5 ** (91 / 90) + 0.5)])


@pytest.mark.fit
@pytest.mark.parametrize("config", [{}, {"decay_half_lives": (), "half_life": 3}, {"decay_half_lives": (2, 7, 9)}])
def test_contributions_are_what_a_score_loses_in_every_form(config: dict, tmp_path) -> None:
    model = Collaborative(CollaborativeConfig(**config)).fit(build_dataset(), OPTIONS)
    model.save(tmp_path)
    model = Collaborative.load(tmp_path)
    past = [*items_of(0)[:3].tolist(), *items_of(2)[:4].tolist()]
    target = int(items_of(2)[6])
    found = model.explain(histories(past), np.array([target], np.int32))[0]
    whole = model.score(histories(past))[0, target]
    for item, value in zip(found.items, found.values, strict=True):
        less = model.score(histories([one for one in past if one != item]))[0, target]
        assert whole - less == pytest.approx(float(value), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=40), min_size=1, max_size=5), st.integers(0, 99))
def test_contributions_of_a_batch_are_those_worked_out_item_by_item(batch: list[list[int]], seed: int) -> None:
    """Items 8 and 9 came after the fit. Without an item, those before it are a place nearer to the present."""
    rng = np.random.default_rng(seed)
    model = Collaborative()
    weights, left, right = rng.normal(size=(8, 8)), rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    dense, factors = Dense(weights.astype(np.float32)), Factors(left.astype(np.float32), right.astype(np.float32))
    few = sp.csr_array(np.where(rng.random((8, 8)) < 0.4, weights, 0).astype(np.float32))
    model.terms = (Term(dense, 1.0), Term(Sparse(few), 3.0), Term(factors, None))
    model.base = np.zeros(10, np.float32)
    queries, lists = histories(*batch), rng.integers(NO_ITEM, 10, (len(batch), 4)).astype(np.int32)
    for row, found in enumerate(model.explain_lists(queries, lists)):
        profile = build_profiles(queries.take(np.array([row])), 10)
        assert found.items.tolist() == profile.items.tolist()
        expected = np.zeros((len(profile.items), 4))
        for term, kernel in zip(model.terms, (weights, few.toarray(), left @ right.T), strict=True):
            decay = 1.0 if term.half_life is None else 0.5 ** (1 / term.half_life)
            for column, item in enumerate(lists[row]):
                shares = [
                    float(mass) * decay ** (len(profile.items) - 1 - place) * kernel[source, item]
                    if source < 8 and 0 <= item < 8
                    else 0.0
                    for place, (source, mass) in enumerate(zip(profile.items, profile.weights, strict=True))
                ]
                for place, share in enumerate(shares):
                    expected[place, column] += share - sum(shares[:place]) * (1 / decay - 1)
        np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)


def test_what_is_long_forgotten_leaves_no_number_that_is_slow_to_multiply() -> None:
    decayed = build_profiles(histories(list(range(200))), 200, half_life=1.0)
    kept = decayed.weights[decayed.weights > 0]
    np.testing.assert_array_equal(decayed.weights[:167], 0)
    np.testing.assert_allclose(kept, np.log2(1.8) * 0.5 ** np.arange(32, -1, -1.0), rtol=1e-6)


def test_kernels_of_every_form_agree() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.random((2, 8, 3)).astype(np.float32)
    weights = left @ right.T
    profiles = sp.csr_array((rng.random((4, 8)) < 0.5).astype(np.float32))
    rows, offsets = np.array([5, 0, 5], np.int32), np.array([0, 2, 2, 3])
    lists = np.array([[1, 7], [2, 2], [5, 1]], np.int32)
    few = SparseFactors(sp.csr_array(left), sp.csr_array(right))
    for kernel in (Dense(weights), Sparse(sp.csr_array(weights)), Factors(left, right), few):
        restored = type(kernel).from_arrays(kernel.arrays())
        np.testing.assert_allclose(restored.propagate(profiles), profiles @ weights, rtol=1e-5)
        np.testing.assert_allclose(
            restored.pairs(rows, offsets, lists), weights[rows[:, None], lists[[0, 0, 2]]], rtol=1e-5
        )


def test_kernels_hold_the_numbers_of_a_row_side_by_side() -> None:
    """A query takes few rows. From a matrix in another order, numpy would copy all of it for each query."""
    learned = Dense(ease_weights(sp.csr_array(np.eye(6, 4, dtype=np.float32)), 1.0))
    stored = Dense.from_arrays({"weights": np.asfortranarray(learned.weights)})
    factors = Factors(np.ones((2, 3), np.float32).T, np.ones((2, 3), np.float32).T)
    for matrix in (learned.weights, stored.weights, factors.left, factors.right):
        assert matrix.flags.c_contiguous


def test_the_strongest_weights_are_kept_by_magnitude() -> None:
    kept = strongest(np.array([[1, -5, 2, 0], [0, 0, 0, 3]], np.float32), 2).toarray()
    np.testing.assert_array_equal(kept, [[0, -5, 2, 0], [0, 0, 0, 3]])


@pytest.mark.fit
@pytest.mark.parametrize(
    ("settings", "form"),
    [
        ({}, [Dense, Dense]),
        ({"transition_items": 0}, [Dense]),
        ({"decay_half_lives": ()}, [Dense]),
        ({"transition_items": 0, "dense_items": 10, "kept_weights": 40}, [Sparse]),
        ({"transition_items": 0, "closed_form_items": 10, "head_items": 30, "factors": 6}, [Sparse, Factors]),
        ({"transition_items": 0, "closed_form_items": 10, "head_items": 0}, [Factors]),
    ],
)
def test_collaborative_finds_the_genre_in_the_form_that_its_catalogue_allows(settings: dict, form: list[type]) -> None:
    model = Collaborative(CollaborativeConfig(repeat_weight=0, **settings)).fit(build_dataset(), OPTIONS)
    assert [type(term.kernel) for term in model.terms] == form
    liked = items_of(1)[:4].tolist()
    allowed = np.ones(N_ITEMS, bool)
    allowed[liked] = False
    top = model.recommend(histories(liked), 10, allowed=allowed).items[0]
    assert np.isin(top, items_of(1)).sum() >= 9


@pytest.mark.fit
def test_a_factorisation_repeats_itself_under_its_seed() -> None:
    config = CollaborativeConfig(transition_items=0, closed_form_items=10)
    first, second = (Collaborative(config).fit(build_dataset(), OPTIONS).score(histories([3])) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_neighbours_by_shrunk_cosine() -> None:
    matrix = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1]], np.float32))
    found = shrunk_cosines(matrix, neighbours=1, shrinkage=2.0, cells=6).toarray()
    expected = [[0, 2 / (np.sqrt(6) + 2), 0], [2 / (np.sqrt(6) + 2), 0, 0], [1 / (np.sqrt(3) + 2), 0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.fit
def test_popularity_halves_with_age() -> None:
    dataset = build_dataset()
    events = dataset.interactions
    item = int(events.items[0])
    model = Popularity(PopularityConfig(half_life_days=10)).fit(dataset, OPTIONS)
    age = (events.timestamps.max() - events.timestamps[events.items == item]) / DAY
    mass = (events.weights[events.items == item] * 0.5 ** (age / 10)).sum()
    assert model.values[item] == pytest.approx(np.log2(1 + mass), rel=1e-5)


@pytest.mark.fit
def test_what_is_recent_in_a_history_counts_more() -> None:
    model = Collaborative(CollaborativeConfig(half_life=2)).fit(build_dataset(), OPTIONS)
    westerns, romances = items_of(0)[:4].tolist(), items_of(1)[:4].tolist()
    old_west, old_romance = model.score(histories(westerns + romances, romances + westerns))
    rest = items_of(1)[4:]
    assert old_west[rest].mean() > old_romance[rest].mean()
