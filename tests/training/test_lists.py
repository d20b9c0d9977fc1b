"""Figures of lists agree with tables worked out by hand and with scikit-learn; intervals hold what they should."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, pairwise
from torchmetrics.functional import retrieval

from training.evaluation import list_metrics as lists
from training.evaluation import metrics
from training.evaluation.intervals import Estimate, aggregate_estimates, mean_estimates, paired_difference
from training.models.lists import NO_ITEM

# Four users know five items; item 4 is known to nobody.
SEEN = sp.csr_array(np.array([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 0, 0]], dtype=bool))
TOP = np.array([[0, 1], [0, 4], [0, NO_ITEM], [NO_ITEM, NO_ITEM]], dtype=np.int32)


def counts_of(top: np.ndarray, n_items: int) -> np.ndarray:
    return np.asarray(lists.listings(top, n_items).sum(axis=0))[:, None]


def test_coverage_and_gini_by_hand() -> None:
    counts = counts_of(TOP, 5)[:, 0]
    assert counts.tolist() == [3, 1, 0, 0, 1]
    assert lists.coverage(counts, 5) == pytest.approx(3 / 5)
    # Ascending 0 0 1 1 3, with weights -4 -2 0 2 4: (2 + 12) / (4 * 5 places).
    assert lists.gini(counts, 5) == pytest.approx(14 / 20)
    assert lists.gini(counts[counts > 0], 5) == pytest.approx(14 / 20)  # what is never listed may be left out
    assert lists.gini(np.array([2.0, 2, 2]), 3) == pytest.approx(0)
    assert lists.gini(np.array([6.0, 0, 0]), 3) == pytest.approx(1)
    assert lists.gini(np.array([6.0]), 1) == 0


def test_novelty_by_hand() -> None:
    found = lists.novelty(TOP, SEEN)
    # All four know item 0: 0 bits. Two know item 1: 1 bit. Nobody knows item 4: as if one did, 2 bits.
    assert found[:3].tolist() == [0.5, 1.0, 0.0] and np.isnan(found[3])


def test_diversity_by_hand() -> None:
    found = lists.intra_list_diversity(TOP, SEEN)
    # Items 0 and 1 share two users of four and two: cosine 2 / sqrt(8). Nobody knows item 4: cosine 0.
    assert found[:2].tolist() == pytest.approx([1 - 2 / np.sqrt(8), 1.0]) and np.isnan(found[2:]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(3, 30))
def test_lists_agree_with_scikit_learn(seed: int, k: int, n_items: int) -> None:
    rng = np.random.default_rng(seed)
    seen = rng.random((25, n_items)) < 0.3
    k = min(k, n_items)
    top = np.array([rng.choice(n_items, k, replace=False) for _ in range(7)], dtype=np.int32)
    distances = pairwise.cosine_distances(seen.T)
    np.fill_diagonal(distances, 0)
    expected = [distances[np.ix_(row, row)].sum() / (k * (k - 1)) for row in top]
    assert lists.intra_list_diversity(top, sp.csr_array(seen)) == pytest.approx(expected, abs=1e-9)
    ascending = np.sort(counts_of(top, n_items)[:, 0])
    lorenz = np.concatenate(([0], np.cumsum(ascending) / ascending.sum()))
    expected_gini = (1 - 2 * auc(np.linspace(0, 1, n_items + 1), lorenz)) * n_items / (n_items - 1)
    assert lists.gini(ascending, n_items) == pytest.approx(expected_gini)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60))
def test_ranks_agree_with_torchmetrics(seed: int, n_items: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(n_items).astype(np.float32)[None]  # no ties: it shares them out, a list cannot
    targets = rng.random((1, n_items)) < 0.3
    targets[0, rng.integers(n_items)] = True
    found = metrics.per_user_metrics(
        metrics.target_ranks(scores, sp.csr_array(targets), sp.csr_array(scores.shape, dtype=bool))
    )
    predicted, target = torch.from_numpy(scores[0]), torch.from_numpy(targets[0])
    k = min(10, n_items)
    others = {
        "ndcg@10": retrieval.retrieval_normalized_dcg(predicted, target, top_k=k),
        "recall@10": retrieval.retrieval_recall(predicted, target, top_k=k),
        "hit_rate@10": retrieval.retrieval_hit_rate(predicted, target, top_k=k),
        "mrr": retrieval.retrieval_reciprocal_rank(predicted, target),
    }
    assert {name: found[name][0] for name in others} == pytest.approx({name: float(v) for name, v in others.items()})


def test_figures_of_all_lists_have_intervals_around_them() -> None:
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, 201)
    top = np.array([rng.choice(200, 10, replace=False, p=chance / chance.sum()) for _ in range(80)], dtype=np.int32)
    statistics = {"coverage": lists.coverage, "gini": lists.gini}
    found = aggregate_estimates(lists.listings(top, 200), statistics, 400, seed=1)
    resampled = np.array([[lists.coverage(counts_of(draw, 200), 200)[0]] for draw in _worlds(rng, chance)])
    assert found["coverage"].mean == pytest.approx(len(np.unique(top)) / 200)
    for each in found.values():
        assert each.low is not None and each.high is not None and 0 <= each.low < each.mean < each.high <= 1
    width = (found["coverage"].high or 0) - (found["coverage"].low or 0)
    assert 0.3 < width / (4 * resampled.std()) < 2  # as wide as other users of the same kind would scatter it


def _worlds(rng: np.random.Generator, chance: np.ndarray) -> list[np.ndarray]:
    return [
        np.array([rng.choice(200, 10, replace=False, p=chance / chance.sum()) for _ in range(80)], dtype=np.int32)
        for _ in range(60)
    ]


def test_lists_without_items_have_no_figures_rather_than_nan() -> None:
    nothing = np.full((3, 10), NO_ITEM, dtype=np.int32)
    assert aggregate_estimates(lists.listings(nothing, 5), {"gini": lists.gini}, 20, seed=0) == {}
    assert mean_estimates({"novelty": lists.novelty(nothing, SEEN)}, 20, seed=0) == {}
    some = np.array([[0, 1], *[[NO_ITEM, NO_ITEM]] * 9], dtype=np.int32)  # most draws hold no list at all
    found = aggregate_estimates(lists.listings(some, 5), {"gini": lists.gini}, 50, seed=0)["gini"]
    assert np.isfinite([found.mean, found.low, found.high]).all()  # type: ignore[list-item]
    one = mean_estimates({"novelty": lists.novelty(some, SEEN)}, 50, seed=0)["novelty"]
    assert np.isfinite([one.mean, one.low, one.high]).all()  # type: ignore[list-item]


def test_a_paired_difference_cancels_what_makes_users_hard() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 1, 200)
    one, other = hard + 0.1 + rng.normal(0, 0.05, 200), hard
    found = paired_difference(one, other)
    assert found.low is not None and found.high is not None
    assert found.mean == pytest.approx(np.mean(one - other)) and 0.08 < found.low < found.high < 0.12
    apart = mean_estimates({"one": one, "other": other}, 500, 0)
    assert (apart["one"].low or 0) < (apart["other"].high or 0)  # which intervals of each alone cannot tell
    unknown = np.where(np.arange(200) < 50, np.nan, one)
    assert paired_difference(unknown, other).mean == pytest.approx(np.mean((one - other)[50:]))
    with pytest.raises(ValueError, match="same users"):
        paired_difference(one, other[:50])
    with pytest.raises(ValueError, match="no user"):
        paired_difference(np.full(3, np.nan), np.zeros(3))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 99))
def test_an_interval_holds_its_mean_and_stays_among_the_values(values: list[float], seed: int) -> None:
    found = mean_estimates({"a": np.array(values)}, 200, seed)["a"]
    assert isinstance(found, Estimate) and found.low is not None and found.high is not None
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
