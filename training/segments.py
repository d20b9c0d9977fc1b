"""Whom and what a figure is about: the questions of a hold-out, told apart by what was known before them.

    all         every user asked
    warm        users who have a history at the time of the query
    cold_users  users who have none
    cold_items  targets without an event before the test window, ranked among all items
    repeat      targets that their user had before, ranked among all items that may be recommended
    new         targets that their user had not

The last two are there where the ranking leaves items in that users had before.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics import TargetRanks
from training.splits import Split

ALL, WARM, COLD_USERS, COLD_ITEMS, REPEAT, NEW = "all", "warm", "cold_users", "cold_items", "repeat", "new"


@dataclass(frozen=True)
class Segment:
    name: str
    users: npt.NDArray[np.bool_]  # [n_users] who is asked
    ranks: TargetRanks  # of all users, with the targets that count


def segments(split: Split, ranks: TargetRanks) -> Iterator[Segment]:
    """The segments that hold anybody. ranks: of every target of `split.test`."""
    holdout, past = split.test, split.before_test
    warm = holdout.histories.lengths > 0
    for name, users in ((ALL, np.ones(len(holdout), dtype=bool)), (WARM, warm), (COLD_USERS, ~warm)):
        if users.any():
            yield Segment(name, users, ranks)
    cold = np.bincount(past.interactions.items, minlength=past.n_items) == 0
    parts = [(COLD_ITEMS, cold[ranks.items])]
    if split.mask != "all":
        had = past.seen[holdout.users].tocoo()
        known = np.isin(ranks.rows * past.n_items + ranks.items, had.row.astype(np.int64) * past.n_items + had.col)
        parts += [(REPEAT, known), (NEW, ~known)]
    for name, kept in parts:
        found = ranks.where(kept)
        users = found.n_targets > 0
        if users.any():
            yield Segment(name, users, found)
