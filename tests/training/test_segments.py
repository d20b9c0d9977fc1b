"""Segments part users and targets by what was known before the questions."""

import numpy as np
import pandas as pd
import pytest

from training.dataset import from_events
from training.evaluation import evaluate
from training.metrics import target_ranks
from training.models.contract import RuntimeOptions
from training.models.popularity import Popularity
from training.segments import segments
from training.splits import SeenPolicy, Split, temporal_split

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
    """Who is asked, and how many targets count."""
    split = split_of(mask)
    scores = np.zeros((len(split.test), 4), dtype=np.float32)
    ranks = target_ranks(scores, split.test.targets, split.test.masked)
    return {
        segment.name: (split.test.users[segment.users].tolist(), int(segment.ranks.n_targets[segment.users].sum()))
        for segment in segments(split, ranks)
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


def test_targets_of_a_segment_keep_their_rank_among_all_items() -> None:
    split = split_of("none")
    report = evaluate(Popularity().fit(split.before_test, RuntimeOptions()), split)
    # Popularity orders a and b, then c, then z, which nobody had: of four items the last.
    assert report.metric("mrr", "cold_items") == pytest.approx(1 / 4)
    assert report.metric("recall@10", "cold_items", "random") == 1.0  # ten places for four items
    assert report.metric("recall@10", "repeat") == 1.0
