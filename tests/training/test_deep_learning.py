"""The sequential family: its windows, recent popularity, attribution, its way through time, and what serving loads."""

import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from feature_store.online import Histories
from tests.fixtures.movielens_dataset import movielens_100k
from tests.training.catalogue import build_dataset
from training.data.dataset import Interactions
from training.data.splits import leave_one_out_split
from training.evaluation.report import evaluate_model
from training.models.content_based.encoder import ContentEncoder
from training.models.contract import RuntimeOptions
from training.models.deep_learning.attribution import Fidelity, measure_fidelity
from training.models.deep_learning.checkpoint import Checkpoint
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.model import DeepLearning
from training.models.deep_learning.network import N_DISTANCES, Network, bucket
from training.models.deep_learning.recent_popularity import recent_popularity
from training.models.deep_learning.sequences import epoch
from training.models.deep_learning.softmax import HistoryBias, HistoryMask, TrendLogits, cross_entropy
from training.models.deep_learning.task import NextItemTask, Step, sample_log_q
from training.models.deep_learning.user_vectors import user_vectors
from training.models.lists import ListContributions
from training.models.popularity import Popularity
from training.models.registry import save_model

DAY = 86_400_000_000
SMALL = DeepLearningConfig(dimensions=16, max_length=20, epochs=6, dropout=0.0, batch_size=16)
OPTIONS = RuntimeOptions(threads=1, seed=1, max_seconds=600)


@pytest.fixture(scope="module")
def model() -> DeepLearning:
    return DeepLearning(SMALL).fit(build_dataset(), OPTIONS)


def events_of(lengths: list[int], tie: bool = False) -> Interactions:
    """Users with so many events; event n of the world is of item n."""
    users = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    n = len(users)
    times = np.zeros(n, np.int64) if tie else np.arange(n, dtype=np.int64)
    return Interactions(users, np.arange(n, dtype=np.int32), np.ones(n, np.int8), np.ones(n, np.float32), times)


def histories_of(lengths: list[int], seed: int) -> Histories:
    """Histories of so many random events of 30 items."""
    rng, n = np.random.default_rng(seed), sum(lengths)
    return Histories(
        rng.integers(0, 30, n).astype(np.int32),
        rng.integers(0, 4, n).astype(np.int8),
        rng.random(n).astype(np.float32),
        np.arange(n, dtype=np.int64),
        np.cumsum([0, *lengths]),
    )


def noisy(network: Network) -> Network:
    """The network with random numbers where it begins with zeros."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_an_epoch_shows_every_event_once_in_order(lengths: list[int], window: int, size: int, seed: int) -> None:
    events = events_of(lengths)
    shown: list[int] = []
    starts = set(np.cumsum([0, *lengths]).tolist())
    for _, batch in epoch(events, window, size, np.random.default_rng(seed)):
        assert batch.items.shape[1] <= window and len(batch.items) <= size
        for items, length, loss_mask in zip(batch.items, batch.lengths, batch.loss_mask, strict=True):
            row = items[:length].tolist()
            assert row == list(range(row[0], row[0] + length))  # one user's, in order
            assert len({int(events.users[item]) for item in row}) == 1
            assert loss_mask[1:length].all() and not loss_mask[length:].any()
            assert loss_mask[0] == (row[0] in starts)
            shown += row
    assert sorted(shown) == list(range(len(events)))


def test_events_of_one_moment_change_their_order_between_epochs() -> None:
    events, rng = events_of([8], tie=True), np.random.default_rng(0)
    orders = {tuple(next(epoch(events, 8, 1, rng))[1].items[0].tolist()) for _ in range(5)}
    assert len(orders) > 1


def test_a_span_ahead_is_predicted_from_what_was_known_before_it() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(7), 12).astype(np.int32)
    days = np.sort(rng.integers(1, 30, (7, 12)), axis=1)  # several events of a user in one moment
    days[:, 0] = 0  # but not the first
    times = days.ravel() * DAY
    events = Interactions(
        users, np.arange(84, dtype=np.int32), np.zeros(84, np.int8), np.ones(84, np.float32), times.astype(np.int64)
    )
    shown = 0
    for _, batch in epoch(events, 5, 3, rng, horizon=4 * DAY):
        for row, length in enumerate(batch.lengths):
            items = batch.items[row, :length]
            begins = items[0] % 12 == 0  # a user's first event
            for place in range(length):
                query_time, own = batch.query_times[row, place], times[items]
                assert times[items[place]] - 4 * DAY <= query_time <= times[items[place]]
                assert batch.context_lengths[row, place] == (own < query_time).sum()
                assert batch.loss_mask[row, place] == (begins or batch.context_lengths[row, place] > 0)
                shown += 1
    assert shown == 84


def test_recent_popularity_counts_only_what_came_before_and_halves_with_time() -> None:
    times = np.array([0, 10, 20], dtype=np.int64) * DAY
    events = Interactions(
        np.zeros(3, np.int32), np.array([0, 0, 1], np.int32), np.zeros(3, np.int8), np.ones(3, np.float32), times
    )
    found = recent_popularity(events, 3, (10.0,))
    scale = found.latest[1, 0] / np.log1p(1.0)  # item 1: one event, just now
    assert found.values[0, 0].tolist() == [0, 0, 0]
    assert found.values[1, 0].tolist() == pytest.approx([np.log1p(0.5) * scale, 0, 0])
    assert found.values[2, 0].tolist() == pytest.approx([np.log1p(0.25 + 0.5) * scale, 0, 0])
    assert found.latest[:, 0].tolist() == pytest.approx([np.log1p(0.75) * scale, np.log1p(1.0) * scale, 0])
    assert found.at(np.array([-5, 0, 15 * DAY, 99 * DAY])).tolist() == [0, 0, 1, 2]


def test_distances_fall_into_ordered_buckets_exact_where_near() -> None:
    found = bucket(torch.arange(0, 5_000))
    assert found[:16].tolist() == list(range(16))
    assert (found.diff() >= 0).all() and int(found.max()) == N_DISTANCES - 1


def test_a_place_sees_nothing_after_it() -> None:
    torch.manual_seed(0)
    network = Network(3, SMALL).eval()
    inputs = torch.randn(1, 8, SMALL.dimensions)
    changed = inputs.clone()
    changed[:, 5:] += 1
    with torch.inference_mode():
        before, after = network.users(inputs), network.users(changed)
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.equal(before[:, 5:], after[:, 5:])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 99))
def test_serving_reads_the_same_vectors_as_training(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    config = SMALL.model_copy(update={"max_length": 40, "blocks": 3})
    network = noisy(Network(3, config))
    queries, items = histories_of(lengths, seed), torch.randn(30, config.dimensions)
    with torch.inference_mode():
        vectors = user_vectors(network.users, queries, items, network.types, 40)
        for row, (start, end) in enumerate(pairwise(queries.offsets.tolist())):
            events = slice(max(start, end - 40), end)
            codes = torch.from_numpy(queries.types[events]).long()
            embedded = network.users.embed(
                items[torch.from_numpy(queries.items[events]).long()].unsqueeze(0),
                network.types[codes].unsqueeze(0),
                torch.from_numpy(queries.weights[events]).unsqueeze(0),
            )
            assert torch.allclose(network.users(embedded)[0, -1], vectors[row], atol=1e-5)


def test_an_event_without_presence_is_left_out() -> None:
    """Where distance says nothing, so that those before it are no nearer without it."""
    torch.manual_seed(0)
    network = noisy(Network(3, SMALL))
    for block in network.users.blocks:
        torch.nn.init.zeros_(block.distance)
    queries, items = histories_of([6, 0, 9], 0), torch.randn(30, SMALL.dimensions)
    presence = torch.ones(3, 10)
    presence[0, 3] = presence[2, 9] = 0  # place 0 is the start
    with torch.inference_mode():
        faded = user_vectors(network.users, queries, items, network.types, 20, presence)
        whole = user_vectors(network.users, queries, items, network.types, 20)
        left_out = np.array([queries.items[2], -1, -1])
        less = user_vectors(network.users, queries.without_items(left_out), items, network.types, 20)
    assert torch.allclose(faded[0], less[0], atol=1e-5) and not torch.allclose(faded[0], whole[0], atol=1e-3)
    assert torch.equal(faded[1], whole[1])
    assert not torch.allclose(faded[2], whole[2], atol=1e-3)


def test_the_loss_is_the_cross_entropy_of_what_serving_would_score() -> None:
    torch.manual_seed(0)
    popularity = torch.randn(3, 2, 7)
    task = NextItemTask(Network(3, SMALL).eval(), 7, popularity)
    content, items = torch.randn(7, 3), torch.randint(0, 7, (2, 5))
    query_times = torch.tensor([[0, 0, 1, 2, 2], [1, 1, 1, 0, 2]])
    loss_mask = torch.ones(2, 5, dtype=torch.bool)
    loss_mask[1, 4] = False
    step = Step(
        touched=torch.arange(7),
        content=content,
        id_mask=torch.ones(7),
        items=items,
        types=torch.zeros(2, 5, dtype=torch.int64),
        weights=torch.ones(2, 5),
        lengths=torch.tensor([5, 4]),
        times=torch.zeros(2, 5, dtype=torch.int64),
        loss_mask=loss_mask,
        context_lengths=torch.arange(5).expand(2, 5),
        query_times=query_times,
        log_q=None,
    )
    vectors, types = task.vectors(torch.arange(7), content, torch.ones(7))
    events = vectors[items[:, :-1]]
    users = task.network.users(task.network.users.embed(events, types[0].expand_as(events), torch.ones(2, 4)))
    losses = [
        functional.cross_entropy(
            torch.cat([vectors, popularity[query_times[row, place]].T], 1) @ users[row, place], items[row, place]
        )
        for row, place in loss_mask.nonzero().tolist()
    ]
    assert float(task(step)) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_the_sliced_softmax_has_the_gradients_of_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.models.deep_learning.softmax.SLICE", 4)
    torch.manual_seed(0)
    users, candidates = torch.randn(9, 6, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    targets = torch.randint(0, 5, (9,))
    trend_logits = TrendLogits(torch.randn(3, 2, 5), torch.randint(0, 3, (9,)))
    history_mask = HistoryMask(
        torch.tensor([[0, 1, 5, 2], [3, 4, 0, 1]]),
        torch.tensor([0] * 5 + [1] * 4),
        torch.tensor([*range(5), *range(4)]),
    )
    log_q = torch.randn(5)
    history_bias = HistoryBias(history_mask.items, history_mask.rows, torch.randn(9, 4, requires_grad=True))
    logits = users[:, :4] @ candidates.T - log_q
    beside = torch.zeros(9, 6).scatter_add(
        1, history_bias.items[history_bias.rows], history_bias.values
    )  # the sixth is none of the candidates
    logits = logits + beside[:, :5]
    logits = logits + torch.einsum("nk,nkc->nc", users[:, 4:], trend_logits.values[trend_logits.times])
    for n, (row, place) in enumerate(zip(history_mask.rows, history_mask.places, strict=True)):
        for item in history_mask.items[row, :place].tolist():
            if item < 5 and item != targets[n]:
                logits[n, item] = -torch.inf
    plain = functional.cross_entropy(logits, targets)
    expected = torch.autograd.grad(plain, (users, candidates, history_bias.values))
    sliced = cross_entropy(users, candidates, targets, trend_logits, history_mask, history_bias, log_q)
    found = torch.autograd.grad(sliced, (users, candidates, history_bias.values))
    assert float(sliced) == pytest.approx(float(plain), rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_positions_instead_of_times_have_no_recent_popularity() -> None:
    assert not recent_popularity(events_of([5, 9]), 14, (14.0, 90.0)).latest.any()


def test_the_chance_to_enter_a_sample_is_what_sampling_shows() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([50, 20, 10, 10, 5, 5, 1, 1, 1, 1] * 3)
    hits = np.zeros(len(counts))
    for _ in range(4_000):
        targets = rng.choice(len(counts), 4, p=counts / counts.sum())
        hits[np.union1d(targets, rng.integers(0, len(counts), 3))] += 1
    chance = sample_log_q(torch.from_numpy(counts), 4, 3).exp().numpy()
    assert chance == pytest.approx(hits / 4_000, abs=0.05)


@pytest.mark.fit
def test_a_catalogue_past_the_limit_is_learned_from_samples() -> None:
    dataset = build_dataset()
    split = leave_one_out_split(dataset)
    sampled = DeepLearning(SMALL.model_copy(update={"candidates": 40})).fit(split.train, OPTIONS)
    popularity = Popularity().fit(split.before_test, OPTIONS)
    own, same = (evaluate_model(each, split).metric("auc") for each in (sampled, popularity))
    assert own is not None and same is not None and own > same


@pytest.mark.fit
def test_a_refit_learns_from_new_events_and_leaves_the_old_model_as_it_was(model: DeepLearning) -> None:
    dataset = build_dataset()
    before = model.score(dataset.histories())
    events = dataset.interactions
    last = int(events.timestamps.max())
    rare = int(np.argmin(np.bincount(events.items, minlength=dataset.n_items)))
    users = np.arange(100, dtype=np.int32)
    more = Interactions(
        np.concatenate([events.users, users]),
        np.concatenate([events.items, np.full(100, rare, np.int32)]),
        np.concatenate([events.types, np.full(100, 2, np.int8)]),
        np.concatenate([events.weights, np.ones(100, np.float32)]),
        np.concatenate([events.timestamps, np.full(100, last + DAY)]),
    )
    later = replace(dataset, interactions=more.where(np.lexsort((more.items, more.timestamps, more.users))))
    after = model.refit(later, OPTIONS).score(dataset.histories())
    ranks = [(scores > scores[:, [rare]]).sum(axis=1).mean() for scores in (before, after)]
    assert ranks[1] < ranks[0] - 20
    assert np.array_equal(model.score(dataset.histories()), before)


@pytest.mark.fit
def test_time_ends_a_fit_and_the_best_state_is_kept() -> None:
    began = time.perf_counter()
    model = DeepLearning(SMALL.model_copy(update={"epochs": 100_000, "patience": 100_000})).fit(
        build_dataset(), RuntimeOptions(threads=1, max_seconds=6)
    )
    assert time.perf_counter() - began < 30
    assert model.training["stopped"] == "time"
    assert 1 <= model.training["best_epoch"] <= len(model.training["validation"])
    assert max(model.training["validation"]) == model.training["validation"][model.training["best_epoch"] - 1]


@pytest.mark.fit
def test_a_fit_whose_time_is_over_once_content_is_encoded_learns_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = ContentEncoder.transform

    def slowly(encoder: ContentEncoder, metadata: list[dict[str, Any]]) -> Any:
        time.sleep(0.3)
        return transform(encoder, metadata)

    monkeypatch.setattr(ContentEncoder, "transform", slowly)
    model = DeepLearning(SMALL).fit(build_dataset(), RuntimeOptions(threads=1, max_seconds=0.3))
    assert np.isfinite(model.score(histories_of([1, 2], seed=0))).all()


@pytest.mark.fit
def test_early_stopping_ends_a_fit_that_learns_nothing_new() -> None:
    config = SMALL.model_copy(update={"epochs": 200, "patience": 2, "learning_rate": 0.02})
    training = DeepLearning(config).fit(build_dataset(), OPTIONS).training
    assert training["stopped"] == "patience"
    assert len(training["losses"]) == training["best_epoch"] + 2


@pytest.mark.fit
def test_the_seed_decides_a_fit() -> None:
    config = SMALL.model_copy(update={"epochs": 2, "dropout": 0.2})
    dataset = build_dataset()
    first, same, other = (
        DeepLearning(config).fit(dataset, replace(OPTIONS, seed=seed)).score(dataset.histories()) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, same) and not np.array_equal(first, other)


@pytest.mark.fit
def test_an_interrupted_fit_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SMALL.model_copy(update={"epochs": 4, "dropout": 0.2})
    dataset = build_dataset()
    whole = DeepLearning(config).fit(dataset, OPTIONS)
    written = Checkpoint.write

    def interrupted(self: Checkpoint, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        written(self, tensors, facts)
        if len(facts["progress"]["losses"]) == 2:
            raise KeyboardInterrupt

    options = replace(OPTIONS, workdir=tmp_path)
    for _ in range(2):  # within the validated fit, then within the pass over all events
        monkeypatch.setattr(Checkpoint, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            DeepLearning(config).fit(dataset, options)
        monkeypatch.setattr(Checkpoint, "write", written)
    resumed = DeepLearning(config).fit(dataset, options)
    assert np.array_equal(resumed.score(dataset.histories()), whole.score(dataset.histories()))
    assert resumed.training == whole.training


def test_a_checkpoint_of_other_data_is_not_read(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "fit.safetensors", "one").write({"weights": torch.ones(2)}, {"step": 1})
    found = Checkpoint(tmp_path / "fit.safetensors", "one").read()
    assert found is not None and found[0]["weights"].tolist() == [1, 1] and found[1] == {"step": 1}
    assert Checkpoint(tmp_path / "fit.safetensors", "two").read() is None


def ranked_without(lowered: list[bool]) -> tuple[list[ListContributions], object, Histories, np.ndarray]:
    """One ranked item a history of two events; leaving its evidence out lowers the score where `lowered` says so."""
    n = len(lowered)
    histories = Histories(
        np.tile(np.array([0, 1], np.int32), n),
        np.zeros(2 * n, np.int8),
        np.ones(2 * n, np.float32),
        np.zeros(2 * n, np.int64),
        np.arange(0, 2 * n + 1, 2),
    )
    evidence = [
        ListContributions(np.array([0, 1], np.int32), np.array([[2.0 if low else 1.0], [0.0]], np.float32))
        for low in lowered
    ]

    def score(queries: Histories, items: np.ndarray) -> np.ndarray:
        whole = queries.lengths == 2
        return np.where(whole, 0.0, np.where(items == 1, -1.0, 1.0)).astype(np.float32)

    return evidence, score, histories, np.array([[1 if low else 0] for low in lowered], np.int32)


def test_attribution_is_trusted_from_the_threshold_on_where_leaving_out_agrees() -> None:
    found = measure_fidelity(*ranked_without([True] * 80 + [False] * 20))  # type: ignore[arg-type]
    assert found == Fidelity(threshold=2.0, agreement=1.0, pairs=40)


def test_attribution_that_occlusion_contradicts_is_not_trusted() -> None:
    assert measure_fidelity(*ranked_without([False] * 100)).threshold is None  # type: ignore[arg-type]
    assert measure_fidelity(*ranked_without([True] * 10)).threshold is None  # type: ignore[arg-type]


@pytest.mark.fit
def test_a_model_without_fidelity_gives_no_evidence(model: DeepLearning) -> None:
    histories = build_dataset().histories(np.array([0, 1], dtype=np.int32))
    items = model.recommend(histories, 5).items
    assert (model.evidence(histories, items) >= 0).any()
    silent = DeepLearning(model.config)
    silent.__dict__.update(model.__dict__ | {"fidelity": Fidelity(None, 0.9, 50)})
    assert (silent.evidence(histories, items) == -1).all()


@pytest.mark.fit
def test_what_serves_a_saved_model_never_loads_torchrec(model: DeepLearning, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from feature_store.online import Histories\n"
        "from training.models.registry import load_model\n"
        "model = load_model(Path(sys.argv[1]))\n"
        "one = np.array([3], np.int32)\n"
        "past = Histories(one, one.astype(np.int8), one.astype(np.float32), one.astype(np.int64), np.array([0, 1]))\n"
        "model.evidence(past, model.recommend(past, 5).items)\n"
        "loaded = {'torchrec', 'fbgemm_gpu', 'mlflow'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)


@pytest.mark.fit
def test_a_few_epochs_on_real_data_beat_popularity_clearly() -> None:
    dataset = movielens_100k()
    split = leave_one_out_split(dataset)
    config = DeepLearningConfig(dimensions=48, blocks=1, batch_size=32, learning_rate=4e-3, epochs=2, refit_epochs=0)
    own = evaluate_model(DeepLearning(config).fit(split.train, OPTIONS), split, n_resamples=2).metric("ndcg@10")
    same = evaluate_model(Popularity().fit(split.before_test, OPTIONS), split, n_resamples=2).metric("ndcg@10")
    assert own is not None and same is not None and own > 1.4 * same  # 2.5 times
