"""Repeat consumption in the sequential family: its counts are right, it is learned, explained and saved."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_store.online import Histories
from tests.training.catalogue import DAY, histories
from training.data.dataset import Dataset, Interactions, ItemTable
from training.models.contract import RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.model import DeepLearning
from training.models.deep_learning.repeat_consumption import (
    RepeatConsumption,
    add_repeat_scores,
    decayed_counts,
    decayed_counts_at,
    repeat_scores,
)
from training.models.deep_learning.task import first_occurrences
from training.models.registry import load_model, save_model

OPTIONS = RuntimeOptions(threads=1, seed=1, max_seconds=600)
CONFIG = DeepLearningConfig(
    dimensions=16, blocks=1, max_length=20, epochs=5, dropout=0.0, batch_size=16, horizon_days=7.0, refit_epochs=0
)
N_ITEMS, N_USERS, STAPLES = 60, 60, 4


def households() -> Dataset:
    """Every household buys its own four staples again and again, and now and then something else."""
    rng = np.random.default_rng(0)
    users, items = np.repeat(np.arange(N_USERS, dtype=np.int32), 30), np.empty((N_USERS, 30), np.int32)
    for row in items:
        staples = rng.choice(N_ITEMS, STAPLES, replace=False)
        row[:] = np.where(rng.random(30) < 0.8, rng.choice(staples, 30), rng.integers(0, N_ITEMS, 30))
    times = np.sort(rng.integers(0, 100 * DAY, (N_USERS, 30)), axis=1).ravel()
    events = Interactions(users, items.ravel(), np.full(1800, 3, np.int8), np.ones(1800, np.float32), times)
    catalogue = ItemTable(np.array([f"i{i}" for i in range(N_ITEMS)], object), [{}] * N_ITEMS, np.ones(N_ITEMS, bool))
    return Dataset(events, catalogue, N_USERS)


@pytest.fixture(scope="module")
def model() -> DeepLearning:
    return DeepLearning(CONFIG).fit(households(), OPTIONS)


def test_counts_halve_with_the_days_before_the_newest_event() -> None:
    found = decayed_counts(histories([5, 3, 5], [], [3]), (1.0, 2.0), 9)
    assert list(zip(found.rows.tolist(), found.items.tolist(), strict=True)) == [(0, 3), (0, 5), (2, 3)]
    expected = 0.8 * np.array([[0.5, 0.5**0.5], [1 + 0.25, 1 + 0.5], [1, 1]])
    assert found.values == pytest.approx(expected, rel=1e-6)


def test_training_counts_at_every_place_what_serving_counts_at_the_end() -> None:
    rng = np.random.default_rng(0)
    items, weights = rng.integers(0, 4, (3, 9)), rng.random((3, 9)).astype(np.float32)
    times = np.sort(rng.integers(0, 1_000, (3, 9)), axis=1) * DAY
    rows, places = np.repeat(np.arange(3), 10), np.tile(np.arange(10), 3)
    found = decayed_counts_at(
        *(torch.from_numpy(each) for each in (items, weights, times, rows, places)), (3.0, 200.0)
    ).numpy()
    for n, (row, place) in enumerate(zip(rows, places, strict=True)):
        past = Histories(
            items[row, :place].astype(np.int32),
            np.zeros(place, np.int8),
            weights[row, :place],
            times[row, :place],
            np.array([0, place]),
        )
        expected, own = np.zeros((4, 2)), decayed_counts(past, (3.0, 200.0), 4)
        expected[own.items] = own.values
        reached = np.zeros((4, 2))
        np.add.at(reached, items[row], found[n])
        assert reached == pytest.approx(expected, rel=1e-5)
        assert (found[n].any(axis=1)).sum() <= len(own.items)  # one entry an item


def test_the_first_event_of_each_item_is_told() -> None:
    assert first_occurrences(torch.tensor([[2, 0, 2, 0, 1]])).tolist() == [[True, True, False, False, True]]


def test_repetition_adds_strength_times_log_of_the_count() -> None:
    repeats = RepeatConsumption(2, (1.0,))
    strengths, queries = torch.tensor([[1.0], [2.0], [3.0]]), histories([1, 2, 1], [0])
    whole, some = np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32)
    add_repeat_scores(whole, queries, repeats, strengths)
    add_repeat_scores(some, queries, repeats, strengths, np.array([2, 1], np.int32))
    expected = np.array([[0, 2 * np.log1p(0.8 * 1.25), 3 * np.log1p(0.4)], [np.log1p(0.8), 0, 0]])
    assert whole == pytest.approx(expected, rel=1e-6)
    assert some == pytest.approx(expected[:, [2, 1]], rel=1e-6)
    pairs = np.array([[1, -1, 2], [1, 0, -1]], np.int32)
    found = repeat_scores(queries, pairs, repeats, strengths)
    assert found == pytest.approx(np.where(pairs >= 0, np.take_along_axis(expected, pairs, axis=1), 0), rel=1e-6)


@pytest.mark.fit
def test_what_a_household_buys_again_comes_first(model: DeepLearning) -> None:
    queries = households().histories()
    top = model.recommend(queries, STAPLES).items
    bought = [np.bincount(queries.items[queries.rows == row], minlength=N_ITEMS) for row in range(N_USERS)]
    often = [np.argsort(-counts)[:STAPLES] for counts in bought]
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(top, often, strict=True)]) > 0.7 * STAPLES


@pytest.mark.fit
def test_an_item_that_is_chosen_again_is_its_own_evidence_and_the_score_falls_without_it(model: DeepLearning) -> None:
    queries = households().histories()
    top = model.recommend(queries, 1).items
    assert model.fidelity.agreement is not None and model.fidelity.agreement >= 0.95
    named = model.evidence(queries, top, top=1)[:, 0, 0]
    assert (named == top[:, 0]).mean() > 0.95
    less = queries.without_items(top[:, 0])
    rows = np.arange(N_USERS)
    assert (model.score(less)[rows, top[:, 0]] < model.score(queries)[rows, top[:, 0]]).all()


@pytest.mark.fit
def test_evidence_older_than_what_attention_reads_counts_too() -> None:
    short = DeepLearning(CONFIG.model_copy(update={"max_length": 3})).fit(households(), OPTIONS)
    queries = histories([7, 7, 7, 1, 2, 3])
    (found,) = short.explain_lists(queries, np.array([[7]], np.int32))
    assert found.items[found.values[:, 0].argmax()] == 7


@pytest.mark.fit
def test_candidates_are_scored_as_in_the_whole_and_a_saved_model_scores_the_same(
    model: DeepLearning, tmp_path: Path
) -> None:
    queries, some = households().histories(), np.array([9, 4, 31], np.int32)
    whole = model.score(queries)
    assert np.allclose(model.score(queries, some), whole[:, some], atol=1e-6)
    save_model(model, tmp_path)
    assert np.array_equal(load_model(tmp_path).score(queries), whole)


@pytest.mark.fit
def test_without_half_lives_or_repeats_nothing_is_added() -> None:
    world = households()
    off = DeepLearning(CONFIG.model_copy(update={"repeat_half_lives": (), "epochs": 1})).fit(world, OPTIONS)
    pairs = world.interactions.users * N_ITEMS + world.interactions.items
    once = replace(world, interactions=world.interactions.where(np.unique(pairs, return_index=True)[1]))
    assert off.strengths is None
    assert DeepLearning(CONFIG.model_copy(update={"epochs": 1})).fit(once, OPTIONS).strengths is None
