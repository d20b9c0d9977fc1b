"""What is expected of a fit before it starts: counted exactly where it can be, logged beside what was measured."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from tests.fixtures.platform import ROOT
from tests.training.catalogue import build_dataset
from training.config import load_config
from training.data.dataset import Dataset, from_events
from training.data.splits import Split, temporal_split
from training.estimate import forecast, probe
from training.models.contract import ModelConfig, Recommender, RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.dry_run import places, some_users
from training.models.hybrid.config import HybridConfig
from training.models.hybrid.model import Hybrid
from training.models.linear import LinearRecommender
from training.models.popularity import Popularity
from training.models.registry import families, family_class
from training.resource_usage import resident_mb
from training.train import evaluate_family
from training.workload import Sizes, expected_epochs, n_questions

OPTIONS = RuntimeOptions(threads=1)


def test_sizes_by_hand() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "a", 3), ("v", "c", 4), ("w", "a", 5)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    items = pd.DataFrame({"item_id": list("abcd"), "metadata": [{"title": "a", "year": 1}, {"title": "b"}, {}, {}]})
    assert Sizes.of(from_events(frame, items)) == Sizes(
        rows=5,
        users=3,
        items=4,
        known_items=3,
        pairs=4,
        co_pairs=2**2 + 1 + 1,
        all_pairs=4,
        all_co_pairs=6,
        places=5,
        facts=3,
        past=(0 + 1 + 2) / 5,
    )
    bounded = Sizes.of(from_events(frame, items, max_events=1))
    assert (bounded.rows, bounded.places, bounded.co_pairs, bounded.all_co_pairs) == (5, 3, 3, 6)


def test_a_log_without_events_has_sizes_too() -> None:
    dataset = build_dataset()
    nothing = Sizes.of(dataset.where(np.zeros(len(dataset.interactions), dtype=bool)))
    assert (nothing.rows, nothing.pairs, nothing.co_pairs, nothing.items) == (0, 0, 0, dataset.n_items)


@pytest.fixture(scope="module")
def split() -> Split:
    return temporal_split(build_dataset())


def learned_numbers(model: Recommender) -> int:
    """Of a linear model or a baseline: what it scores with, and its vectors."""
    if isinstance(model, LinearRecommender):
        kernels = [term.kernel for term in model.terms] if hasattr(model, "terms") else [model.kernel]
        arrays = [array for kernel in kernels for name, array in kernel.arrays().items() if name in ("data", "weights")]
        return sum(array.size for array in arrays) + model.base.size + model.vectors.size
    return model.n_items


@pytest.mark.parametrize("family", ["popularity", "collaborative"])
def test_rows_and_parameters_are_exact_where_a_kernel_is_dense(family: str, split: Split) -> None:
    found = evaluate_family(family, split, options=OPTIONS)
    notes = found.report.notes
    assert notes["rows"] == len(split.before_test.interactions)
    assert notes["estimated_parameters"] == learned_numbers(found.evaluated)


def test_parameters_are_an_upper_bound_where_weights_may_be_zero(split: Split) -> None:
    found = evaluate_family("item-knn", split, options=OPTIONS)
    expected, loss_mask = found.report.notes["estimated_parameters"], learned_numbers(found.evaluated)
    assert loss_mask <= expected < 2 * loss_mask


def test_what_was_expected_stands_beside_what_was_measured(split: Split) -> None:
    before = resident_mb()
    found = evaluate_family("collaborative", split, options=OPTIONS)
    notes = found.report.notes
    assert notes["estimated_seconds"] > 0 and notes["estimated_peak_mb"] >= 0.9 * before
    assert found.usage.peak_mb > 0 and found.usage.seconds > 0 and found.usage.cpu_seconds > 0


@pytest.mark.parametrize("family", families())
def test_more_data_never_costs_less(family: str) -> None:
    config = load_config(family)
    small, large = temporal_split(made_of(20, 30)), temporal_split(made_of(200, 300))
    little, much = (forecast(family, config, split, OPTIONS) for split in (small, large))
    assert little is not None and much is not None
    assert much.rows == 10 * little.rows and much.parameters >= little.parameters
    assert much.seconds >= little.seconds


def made_of(users: int, items: int) -> Dataset:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), 20).astype(str),
            "item_id": [f"i{item}" for item in rng.integers(0, items, users * 20)],
            "timestamp": np.arange(users * 20) + 10**15,
        }
    )
    return from_events(frame, pd.DataFrame({"item_id": [f"i{n}" for n in range(items)], "metadata": [{}] * items}))


def test_time_is_bounded_by_what_a_fit_may_take(split: Split) -> None:
    config = DeepLearningConfig(dimensions=8, heads=1, blocks=1, epochs=100_000, patience=100_000)
    free, bounded = (
        forecast("deep-learning", config, split, RuntimeOptions(threads=1, max_seconds=seconds))
        for seconds in (1e6, 2.0)
    )
    assert free is not None and bounded is not None and free.seconds > 100
    assert 2.0 <= bounded.seconds < 30  # a fit, a short refit, and what is checked after each


def test_steps_of_a_transformer_are_rehearsed_and_leave_nothing_behind(split: Split) -> None:
    config = DeepLearningConfig(dimensions=8, heads=1, blocks=1, max_length=10, epochs=1, refit_epochs=1)
    draws, threads = torch.random.get_rng_state(), torch.get_num_threads()
    said = forecast("deep-learning", config, split, OPTIONS)
    assert torch.equal(torch.random.get_rng_state(), draws) and torch.get_num_threads() == threads
    more = forecast("deep-learning", config.model_copy(update={"epochs": 1_000, "patience": 1_000}), split, OPTIONS)
    assert said is not None and more is not None and more.seconds > 20 * said.seconds
    model = family_class("deep-learning")(config).fit(split.train, OPTIONS)
    loss_mask = model.record()["parameters"] + model.n_items * config.dimensions
    assert loss_mask <= said.parameters < 2 * loss_mask  # content may turn out narrower than it might be


def test_places_of_an_epoch_by_hand() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("v", "c", 4), ("w", "a", 5)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    dataset = from_events(frame, pd.DataFrame({"item_id": list("abc"), "metadata": [{}] * 3}))
    assert places(dataset, DeepLearningConfig(batch_size=2)) == 2 * 1 + 1 * 3  # two of one event, one of three
    assert places(dataset, DeepLearningConfig(batch_size=3)) == 3 * 3


def test_a_rehearsal_draws_so_many_sequences_however_long_the_histories_are() -> None:
    dataset = made_of(users=50, items=30)  # of twenty events each
    for length, users in ((20, 10), (7, 4), (1, 1)):  # one sequence a user, three, twenty
        drawn = some_users(dataset, 10, length, seed=0).interactions
        assert len(np.unique(drawn.users)) == users and len(drawn) == 20 * users
    assert len(some_users(dataset, 1_000, 20, seed=0).interactions) == len(dataset.interactions)


@pytest.mark.parametrize("epochs", [1, 5, 6, 20, 100])
def test_where_early_stopping_ends_is_expected_between_the_earliest_and_the_last(epochs: int) -> None:
    fewest = min(epochs, 6)
    expected = expected_epochs(epochs, patience=5)
    assert fewest <= expected <= epochs and expected / fewest == pytest.approx(epochs / expected)


def test_questions_of_a_blend_are_counted_as_it_will_ask_them(split: Split) -> None:
    base_models = {"popularity": Popularity().fit(split.train, OPTIONS)}
    for per_user in (1, 3):
        config = HybridConfig(questions_per_user=per_user, mask_seen=False)
        ensemble = Hybrid(config, base_models, split.known_until).fit(split.before_test, OPTIONS)
        assert ensemble.learned.n_questions == n_questions(split, per_user, config.max_questions)
    assert n_questions(split, 3, 7) == 7


WAITING = """
import time
from training.resource_usage import Stopwatch, measure_usage
watch, device = Stopwatch(), Stopwatch("cuda")
with measure_usage() as usage:
    time.sleep(0.3)
print(watch.lap() < 0.15, device.lap() >= 0.3, usage.result.cpu_seconds < 0.15, usage.result.seconds >= 0.3)
"""


def test_waiting_is_no_work_of_the_processor_but_may_be_of_a_device() -> None:
    # In a process of its own: the threads of this one, whatever they are at, count too.
    done = subprocess.run([sys.executable, "-c", WAITING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4


def test_a_machine_has_a_speed_in_each_currency() -> None:
    speed = probe(1)
    assert min(speed.flops, speed.adds, speed.mixed, speed.moves, speed.passes) > 1e5 and probe(1) is speed


def test_nothing_is_said_of_a_family_that_nothing_is_known_of(split: Split) -> None:
    assert forecast("of-a-team", ModelConfig(), split, OPTIONS) is None
