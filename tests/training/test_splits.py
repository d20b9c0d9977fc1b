"""Splits respect time, hide exactly what the tenant hides, and are told apart by their hash."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.catalogue import build_dataset
from training.data.dataset import Dataset, from_events
from training.data.splits import leave_one_out_split, temporal_split


def dataset_of(rows: list[tuple[str, str, int]], kind: str = "click", max_events: int = 200) -> Dataset:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).assign(interaction_type=kind)
    items = pd.DataFrame({"item_id": list("abcdef"), "metadata": [{}] * 6})
    return from_events(frame, items, max_events)


# Ten events: eight before time 9, one in the validation window, one in the test window.
TEN = [("u", "abcdefab"[t], t + 1) for t in range(8)] + [("u", "c", 9), ("v", "d", 10)]


def test_a_temporal_split_puts_the_oldest_events_into_training_and_the_rest_into_windows() -> None:
    split = temporal_split(dataset_of(TEN), mask="none")
    assert split.train.interactions.timestamps.tolist() == list(range(1, 9))
    assert split.before_test.interactions.timestamps.tolist() == list(range(1, 10))
    assert split.known_until == 9
    assert split.validation.targets.toarray().tolist() == [[False, False, True, False, False, False]]
    assert split.test.users.tolist() == [1]
    assert split.test.targets.toarray()[0].tolist() == [False, False, False, True, False, False]


def test_a_history_ends_before_the_window_and_is_bounded() -> None:
    split = temporal_split(dataset_of([*TEN[:-1], ("u", "d", 10)], max_events=3), mask="none")
    assert split.test.histories.timestamps.tolist() == [7, 8, 9]
    assert split.validation.histories.timestamps.tolist() == [6, 7, 8]


def test_seen_items_are_masked_and_no_targets_by_the_tenants_policy() -> None:
    repeats = [*TEN[:-1], ("u", "a", 10), ("u", "f", 10)]
    everything = dataset_of(repeats)
    assert len(temporal_split(everything, mask="all").test) == 0  # u has seen a and f
    bought = temporal_split(everything, mask="bought").test
    assert bought.targets.nnz == 2 and bought.masked.nnz == 0  # clicks are no purchases
    purchases = temporal_split(dataset_of(repeats, kind="purchase"), mask="bought").test
    assert len(purchases) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["none", "bought", "all"]))
def test_no_query_knows_its_targets(seed: int, mask: str) -> None:
    dataset = build_dataset(seed)
    for split in (temporal_split(dataset, mask), leave_one_out_split(dataset, mask)):  # type: ignore[arg-type]
        for holdout, past in ((split.validation, split.train), (split.test, split.before_test)):
            assert holdout.targets.multiply(holdout.masked).nnz == 0
            assert (np.diff(holdout.targets.indptr) > 0).all()
            expected = past.histories(holdout.users)
            assert np.array_equal(holdout.histories.items, expected.items)
            if mask == "all":
                assert (holdout.masked != past.seen[holdout.users]).nnz == 0
        assert len(split.train.interactions) < len(split.before_test.interactions) < len(dataset.interactions)


def test_leave_one_out_takes_the_last_event_for_test_and_the_one_before_for_validation() -> None:
    rows = [("u", item, time) for time, item in enumerate("abcd")] + [("short", "a", 1), ("short", "b", 2)]
    split = leave_one_out_split(dataset_of(rows))
    assert split.test.targets.toarray().tolist() == [[False, False, False, True, False, False]]
    assert split.validation.targets.toarray().tolist() == [[False, False, True, False, False, False]]
    assert split.test.histories.items.tolist() == [0, 1, 2]
    assert len(split.train.interactions) == 4  # two of u, and both of the user too short to be evaluated


def test_leave_one_out_orders_events_of_one_moment_without_regard_to_their_position() -> None:
    rows = [(f"user {n}", item, 5) for n in range(300) for item in "abc"]
    held = np.bincount(leave_one_out_split(dataset_of(rows)).test.targets.indices, minlength=3)
    assert held.min() > 60


def test_the_hash_names_the_queries_and_their_data() -> None:
    dataset = build_dataset()
    split = temporal_split(dataset)
    assert split.hash == temporal_split(build_dataset()).hash
    others = [
        temporal_split(dataset, "none"),
        temporal_split(dataset, test=0.2),
        leave_one_out_split(dataset),
        temporal_split(replace(dataset, max_events=5)),
        temporal_split(build_dataset(1)),
    ]
    assert len({split.hash, *(other.hash for other in others)}) == len(others) + 1
    weights = dataset.interactions.weights.copy()
    weights[0] += 0.1
    assert (
        temporal_split(replace(dataset, interactions=replace(dataset.interactions, weights=weights))).hash != split.hash
    )


@pytest.mark.parametrize("rows", [TEN[:2], [("u", "a", 1)] * 5 + [("u", "b", 1)] * 5])
def test_what_cannot_be_split_in_time_is_refused(rows: list[tuple[str, str, int]]) -> None:
    with pytest.raises(ValueError, match="temporal split needs"):
        temporal_split(dataset_of(rows))


def test_a_sample_of_queries_keeps_each_with_its_targets() -> None:
    whole = temporal_split(build_dataset()).test
    part = whole.sample(5, seed=1)
    assert len(part) == 5
    for row, user in enumerate(part.users):
        place = int(np.flatnonzero(whole.users == user)[0])
        assert np.array_equal(part.targets[[row]].toarray(), whole.targets[[place]].toarray())
        assert np.array_equal(part.histories.take(np.array([row])).items, whole.histories.take(np.array([place])).items)
