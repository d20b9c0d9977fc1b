"""The accuracy of a model that serves is the AUC of its evaluation, over the items that may be shown."""

import numpy as np
import pytest
import scipy.sparse as sp

from feature_store.online import build_histories
from tests.training.catalogue import build_dataset
from training.data.splits import Holdout, temporal_split
from training.evaluation.online_accuracy import measure_online_accuracy
from training.evaluation.report import evaluate_model
from training.models.contract import RuntimeOptions
from training.models.popularity import Popularity

pytestmark = pytest.mark.fit

EMPTY = (np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.float32))


def holdout_of(targets: list[list[int]], masked: list[list[int]]) -> Holdout:
    """Queries of users without a history. targets, masked: 0 or 1 by place."""
    histories = build_histories(*EMPTY, np.empty(0, np.int64), n_rows=len(targets), max_events=10)
    users = np.arange(len(targets), dtype=np.int32)
    return Holdout(users, histories, sp.csr_array(np.array(targets, bool)), sp.csr_array(np.array(masked, bool)))


def test_it_is_the_auc_of_the_evaluation_where_every_item_may_be_shown() -> None:
    split = temporal_split(build_dataset())
    model = Popularity().fit(split.before_test, RuntimeOptions(threads=1))
    catalogue = np.arange(split.before_test.n_items, dtype=np.int32)
    found = measure_online_accuracy(model, split.test, catalogue, batch_users=7)
    assert found is not None
    assert found.users == len(split.test)
    assert found.auc == pytest.approx(evaluate_model(model, split).metric("auc"))


def test_by_hand_over_the_items_that_may_be_shown() -> None:
    dataset = build_dataset()
    model = Popularity().fit(dataset, RuntimeOptions(threads=1))
    best, second, third, worst = np.argsort(-model.values, kind="stable")[[0, 1, 2, -1]]
    catalogue = np.array([best, second, third, worst], dtype=np.int32)  # in the order of their scores
    holdout = holdout_of([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], [[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0]])
    found = measure_online_accuracy(model, holdout, catalogue)
    assert found is not None
    # The first outranks all three, the second one of two; the third has nothing left to outrank.
    assert (found.auc, found.users) == (pytest.approx((1 + 0.5) / 2), 2)


def test_without_queries_there_is_none() -> None:
    model = Popularity().fit(build_dataset(), RuntimeOptions(threads=1))
    nobody = holdout_of([[1, 0]], [[0, 0]]).take(np.empty(0, np.int64))
    assert measure_online_accuracy(model, nobody, np.array([0, 1], np.int32)) is None
