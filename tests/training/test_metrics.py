"""Metrics agree with tables worked out by hand and with scikit-learn."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from training.evaluation import metrics
from training.evaluation.intervals import bootstrap_means


def ranks_of(scores: list[list[float]], targets: list[list[int]], masked: list[list[int]] | None = None):
    table = np.array(scores, dtype=np.float32)
    masks = sp.csr_array(np.array(masked if masked else np.zeros_like(table), dtype=bool))
    return metrics.target_ranks(table, sp.csr_array(np.array(targets, dtype=bool)), masks)


def test_ranks_and_metrics_of_a_table_worked_out_by_hand() -> None:
    # Order of the items: 3, 1, 0, 2. Targets 1 (rank 2) and 2 (rank 4).
    found = ranks_of([[0.5, 0.7, 0.1, 0.9]], [[0, 1, 1, 0]])
    assert found.ranks.tolist() == [2, 4]
    values = {name: column[0] for name, column in metrics.per_user_metrics(found).items()}
    gain = 1 / np.log2(3) + 1 / np.log2(5)
    assert values["ndcg@10"] == pytest.approx(gain / (1 + 1 / np.log2(3)))
    assert values["recall@10"] == 1.0
    assert values["mrr"] == 0.5
    assert values["auc"] == pytest.approx(1 / 4)  # of four pairs only (1, 0) is in order


def test_a_target_past_the_cutoff_does_not_count() -> None:
    scores = [list(range(30, 0, -1))]
    targets = [[0] * 30]
    targets[0][0] = targets[0][14] = 1  # ranks 1 and 15
    values = {name: column[0] for name, column in metrics.per_user_metrics(ranks_of(scores, targets)).items()}
    assert values["recall@10"] == 0.5 and values["recall@20"] == 1.0
    assert values["ndcg@10"] == pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert values["hit_rate@10"] == 1.0


def test_ndcg_of_lists_is_ndcg_of_the_ranks_that_they_show() -> None:
    scores = [list(range(30, 0, -1))] * 3
    targets = [[0] * 30 for _ in range(3)]
    targets[0][0] = targets[0][4] = targets[1][12] = targets[2][1] = targets[2][29] = 1
    found = ranks_of(scores, targets)
    hits = np.array(targets, dtype=bool)[:, :10]
    assert metrics.ndcg_of_lists(hits, found.n_targets, 10).tolist() == metrics.ndcg(found, 10).tolist()
    assert metrics.ndcg(found)[1] == pytest.approx(1 / np.log2(14))  # rank 13, and no cutoff


def test_equal_scores_rank_by_position_and_masked_items_do_not_rank() -> None:
    found = ranks_of([[1, 1, 1, 2]], [[0, 0, 1, 0]], [[1, 0, 0, 0]])
    assert found.ranks.tolist() == [3]  # after 3, then 1 by position
    assert found.n_ranked.tolist() == [3]
    assert metrics.per_user_metrics(found)["auc"][0] == pytest.approx(0.25)  # half of the tie, none of item 3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([3, 1000]))
def test_metrics_agree_with_scikit_learn(seed: int, n_items: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (4, n_items)).astype(np.float32)  # few levels: many ties
    targets = rng.random((4, n_items)) < 0.3
    targets[:, 0], targets[:, 1] = True, False  # both classes in every row
    found = metrics.per_user_metrics(ranks_of(scores.tolist(), targets.tolist()))
    order = np.argsort(-scores, axis=1, kind="stable")
    stable = np.empty_like(scores)
    np.put_along_axis(stable, order, np.arange(n_items, 0, -1, dtype=np.float32)[None].repeat(4, 0), axis=1)
    for row in range(4):
        assert found["auc"][row] == pytest.approx(roc_auc_score(targets[row], scores[row]))
        for k in (10, 20):
            expected = ndcg_score(targets[[row]], stable[[row]], k=k)
            assert found[f"ndcg@{k}"][row] == pytest.approx(expected)


def test_the_expected_ndcg_of_chance_is_the_mean_over_random_orders() -> None:
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(40, dtype=np.float32), (20_000, 1)), axis=1)
    targets = np.zeros(scores.shape, dtype=bool)
    targets[:, :3] = True
    none = sp.csr_array(scores.shape, dtype=bool)
    found = metrics.per_user_metrics(metrics.target_ranks(scores, sp.csr_array(targets), none))
    expected = metrics.random_ndcg(np.array([40]), np.array([3]), 10)[0]
    assert found["ndcg@10"].mean() == pytest.approx(expected, rel=0.03)


def test_only_some_targets_may_be_counted_among_all_items() -> None:
    found = ranks_of([[4, 3, 2, 1], [1, 2, 3, 4]], [[1, 0, 1, 0], [1, 0, 0, 0]])
    cold = metrics.per_user_metrics(found.where(found.items >= 2))
    assert cold["mrr"][0] == pytest.approx(1 / 3)
    assert np.isnan(cold["mrr"][1]) and np.isnan(cold["ndcg@10"][1]) and np.isnan(cold["recall@10"][1])


def test_scores_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        ranks_of([[1.0, float("nan")]], [[1, 0]])


def test_bootstrap_means_spread_like_the_standard_error_and_skip_what_is_unknown() -> None:
    rng = np.random.default_rng(1)
    known = rng.normal(5, 2, 400)
    values = np.column_stack([known, np.where(np.arange(400) < 100, known, np.nan)])
    means = bootstrap_means(values, 2_000, seed=0)
    assert means.std(axis=0)[0] == pytest.approx(2 / np.sqrt(400), rel=0.15)
    assert means.std(axis=0)[1] == pytest.approx(2 / np.sqrt(100), rel=0.25)
    assert means.mean(axis=0)[1] == pytest.approx(known[:100].mean(), abs=0.05)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([3, 1000]))
def test_leaving_items_out_of_a_ranking_is_ranking_without_them(seed: int, n_items: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (4, n_items)).astype(np.float32)  # few levels: many ties
    draws = rng.random((4, n_items))
    masked, targets = draws < 0.2, draws > 0.7
    left_out = rng.random((4, n_items)) < 0.3  # some are masked already, some are targets
    sparse = {name: sp.csr_array(each) for name, each in (("masked", masked), ("left_out", left_out))}
    found = metrics.leave_out(metrics.target_ranks(scores, sp.csr_array(targets), sparse["masked"]), scores, **sparse)
    expected = metrics.target_ranks(scores, sp.csr_array(targets & ~left_out), sp.csr_array(masked | left_out))
    for name in ("rows", "items", "ranks", "middle", "n_ranked"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
