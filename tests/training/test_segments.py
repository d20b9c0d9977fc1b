"""Segments part users and targets by what was known before the queries."""

import numpy as np
import pandas as pd
import pytest

from feature_store.interaction_types import SeenPolicy
from training.data.dataset import from_events
from training.data.splits import Split, temporal_split
from training.evaluation.rankings import rank_test_queries
from training.evaluation.report import evaluate_model
from training.evaluation.segments import segments
from training.models.contract import RuntimeOptions
from training.models.popularity import Popularity

pytestmark = pytest.mark.fit

# Ten events: eight train, one validates, and in the test window three users choose at one moment.
ROWS = [
    *[("regular", "abababab"[n], n) for n in range(8)],
    ("other", "c", 8),
    ("regular", "a", 9),  # had it before
    ("regular", "c", 9),  # known to others
    ("regular", "z", 9),  # nobody had it
    ("stranger", "a", 9),  # has no history
]


def split_of(mask: SeenPolicy) -> Split:
    frame = pd.DataFrame(ROWS, columns=["user_id", "item_id", "timestamp"]).assign(interaction_type="click")
    items = pd.DataFrame({"item_id": list("abcz"), "metadata": [{}] * 4})
    return temporal_split(from_events(frame, items), mask, validation=1 / 13, test=4 / 13)


def found(mask: SeenPolicy) -> dict[str, tuple[list[int], int]]:
    """The evaluated users, and how many targets count."""
    split = split_of(mask)
    rankings = rank_test_queries(Popularity().fit(split.before_test, RuntimeOptions()), split)
    return {
        segment.name: (split.test.users[segment.users].tolist(), int(segment.ranks.n_targets[segment.users].sum()))
        for segment in segments(split, rankings)
    }


def test_everything_may_be_recommended_again() -> None:
    regular, stranger = 1, 2  # users in order of their ids: other, regular, stranger
    assert found("none") == {
        "all": ([regular, stranger], 4),
        "warm": ([regular], 3),
        "cold_users": ([stranger], 1),
        "cold_items": ([regular], 1),
        "repeat": ([regular], 1),
        "new": ([regular, stranger], 3),
    }


def test_what_a_user_had_is_masked_and_no_target_then() -> None:
    regular, stranger = 1, 2
    assert found("all") == {
        "all": ([regular, stranger], 3),
        "warm": ([regular], 2),
        "cold_users": ([stranger], 1),
        "cold_items": ([regular], 1),
    }


def test_what_is_new_is_looked_for_among_what_the_user_has_not_had() -> None:
    split = split_of("none")
    report = evaluate_model(Popularity().fit(split.before_test, RuntimeOptions()), split)
    # Popularity orders a and b, then c, then z, which nobody had. `regular` had a and b: z is the second of c and z.
    assert report.metric("mrr", "cold_items") == pytest.approx(1 / 2)
    assert report.metric("ndcg@10", "cold_items") == pytest.approx(1 / np.log2(3))
    # `regular` finds c and z at once; to `stranger` all four are new, and a is the first or the second.
    assert report.metric("ndcg@10", "new") == pytest.approx(1.0)
    assert report.metric("recall@10", "cold_items", "random") == 1.0  # ten places for two items
    assert report.metric("ndcg@10", "cold_items", "random") == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_what_a_user_had_is_found_among_all_items() -> None:
    split = split_of("none")
    report = evaluate_model(Popularity().fit(split.before_test, RuntimeOptions()), split)
    assert report.metric("mrr", "repeat") == 1.0  # a before b, c and z
    assert report.metric("recall@10", "repeat") == 1.0
    assert report.metric("ndcg@10", "repeat", "random") == pytest.approx(
        sum(1 / np.log2(place + 1) for place in range(1, 5)) / 4
    )
    assert "among what the user has not had" in report.protocol and split.protocol in report.protocol


def test_lists_of_a_segment_are_those_its_targets_were_found_in() -> None:
    split = split_of("none")
    report = evaluate_model(Popularity().fit(split.before_test, RuntimeOptions()), split)
    assert report.metric("coverage@10", "repeat") == 1.0  # four items in one list
    assert report.metric("coverage@10", "cold_items") == 0.5  # c and z
