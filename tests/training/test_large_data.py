"""Work in parts gives the same as work at once, and a training that needs too much memory is refused."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from rich.console import Console

from tests.training.catalogue import N_USERS, build_dataset
from training.data.dataset import Dataset
from training.data.splits import temporal_split
from training.evaluation.comparison import EvaluationSetup, SkippedFamily, evaluate_families
from training.evaluation.rankings import rank_queries
from training.evaluation.segments import protocol_of
from training.memory_limit import InsufficientMemoryError
from training.models import popularity
from training.models.coconsumption import training_matrix
from training.models.collaborative import ease
from training.models.collaborative.ease import ease_weights
from training.models.collaborative.model import Collaborative
from training.models.contract import RuntimeOptions
from training.models.deep_learning import sequences
from training.models.deep_learning.sequences import epoch
from training.models.item_knn import ItemKnn
from training.models.popularity import decayed_popularity
from training.models.workload import DataSizes
from training.terminal import EvaluationProgress
from training.train import evaluate_family, train_family


@pytest.fixture
def dataset() -> Dataset:
    """131 users, of whom every seventh has no event, at most 9 events in a history."""
    whole = build_dataset()
    return replace(whole.where(whole.interactions.users % 7 > 0), max_events=9)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = Dataset.histories_in_parts
    monkeypatch.setattr(Dataset, "histories_in_parts", lambda self: at_once(self, 40))
    monkeypatch.setattr(popularity, "EVENTS_AT_ONCE", 40)


def test_histories_come_in_parts_of_whole_users(dataset: Dataset) -> None:
    whole, parts = dataset.histories(), list(dataset.histories_in_parts(40))
    assert len(parts) > 20 and max(len(part.items) for _, part in parts) <= 40 + 20
    assert [first for first, _ in parts] == np.cumsum([0, *(len(part) for _, part in parts[:-1])]).tolist()
    assert sum(len(part) for _, part in parts) == N_USERS
    for name in ("items", "types", "weights", "timestamps", "lengths"):
        assert np.array_equal(np.concatenate([getattr(part, name) for _, part in parts]), getattr(whole, name)), name
    assert [len(part) for _, part in dataset.histories_in_parts()] == [N_USERS]


def found(dataset: Dataset) -> list[np.ndarray]:
    matrix = training_matrix(dataset)
    sizes = DataSizes.of(dataset)
    return [*(getattr(matrix, name) for name in ("data", "indices", "indptr")), decayed_popularity(dataset, 3.0), sizes]


def test_matrix_popularity_and_sizes_do_not_depend_on_the_parts(
    dataset: Dataset, request: pytest.FixtureRequest
) -> None:
    at_once = found(dataset)
    request.getfixturevalue("in_parts")
    for ours, theirs in zip(found(dataset), at_once, strict=True):
        assert np.array_equal(ours, theirs)


def test_the_gram_product_of_parts_is_that_of_the_whole_matrix(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = training_matrix(dataset)
    whole = ease_weights(matrix, 10.0)
    parts, of_matrix = [], ease.row_blocks
    monkeypatch.setattr(ease, "ENTRIES_AT_ONCE", 50)
    monkeypatch.setattr(ease, "row_blocks", lambda matrix: parts.extend(of_matrix(matrix)) or parts)
    assert np.allclose(ease_weights(matrix, 10.0), whole, rtol=1e-5, atol=1e-6)
    assert max(part.nnz for part in parts) <= 50 and (sp.vstack(parts) != matrix).nnz == 0


def test_an_epoch_in_parts_has_every_event_once_and_keeps_users_whole(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = dataset.interactions
    monkeypatch.setattr(sequences, "EVENTS_OF_PART", 200)
    shares, targets, times = [], 0, []
    for share, batch in epoch(events, 50, 4, np.random.default_rng(0)):
        shares.append(share)
        valid = np.arange(batch.items.shape[1]) < batch.lengths[:, None]
        targets += int(batch.loss_mask.sum())
        times += batch.timestamps[valid].tolist()
    assert sorted(times) == sorted(events.timestamps.tolist()) and targets == len(events)
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] < 1
    again = [batch.items for _, batch in epoch(events, 50, 4, np.random.default_rng(0))]
    assert all(map(np.array_equal, again, (batch.items for _, batch in epoch(events, 50, 4, np.random.default_rng(0)))))


@pytest.mark.parametrize("family", [ItemKnn, Collaborative])
def test_a_training_that_memory_is_too_small_for_is_refused_with_advice_before_its_first_fit(
    family: type[ItemKnn], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "fit", lambda *_: pytest.fail("a fit began"))
    options = RuntimeOptions(max_memory_mb=20)
    with pytest.raises(InsufficientMemoryError) as refused:
        train_family(family.family, dataset, options=options)
    said = str(refused.value)
    assert said.startswith(f"{family.family} would take about ") and "may take 20 MB" in said
    assert "`dimensions`" in said and "TRAIN_MEMORY_MB" in said and f"{dataset.n_items} items" in said
    split = temporal_split(dataset)
    with pytest.raises(InsufficientMemoryError):
        evaluate_family(family.family, split, options=options)
    progress = EvaluationProgress(Console(quiet=True), 1)
    (outcome,) = evaluate_families([family.family], EvaluationSetup(split, options), progress)
    assert isinstance(outcome, SkippedFamily) and "may take 20 MB" in outcome.reason


def test_the_protocol_tells_of_a_sample_of_users_and_figures_of_batches_are_those_of_all_at_once(
    dataset: Dataset,
) -> None:
    whole, split = temporal_split(dataset), temporal_split(dataset, max_users=20)
    assert f"; 20 of {len(whole.test)} users who chose an item in the test window" in protocol_of(split)
    assert "users who chose an item" not in protocol_of(whole) and set(split.test.users) < set(whole.test.users)
    model = ItemKnn().fit(split.before_test, RuntimeOptions(threads=1))
    found = [rank_queries(model, split.test, batch_users) for batch_users in (1, 7, 256)]
    for each in found[1:]:
        assert np.array_equal(each.top, found[0].top)
        assert np.array_equal(each.per_user["ndcg@10"], found[0].per_user["ndcg@10"])
    rows = np.flatnonzero(np.isin(whole.test.users, split.test.users))
    of_whole = rank_queries(model, whole.test).per_user["ndcg@10"][rows]
    assert np.array_equal(found[0].per_user["ndcg@10"], of_whole)  # a user's figure does not depend on the sample


def test_without_a_limit_the_machine_decides(dataset: Dataset) -> None:
    assert train_family("item-knn", dataset, options=RuntimeOptions(threads=1)).model.n_items == dataset.n_items
