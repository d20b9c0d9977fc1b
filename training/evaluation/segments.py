"""Whom and what a figure is about: the questions of a hold-out, told apart by what was known before them.

    all         every user asked
    warm        users who have a history at the time of the query
    cold_users  users who have none
    cold_items  targets without an event before the test window, ranked among all items that the user has not had
    repeat      targets that their user had before, ranked among all items that may be recommended
    new         targets that their user had not, ranked among all items that the user has not had

The last two are there where the ranking leaves items in that users had before. There a list fills with what its user
has every week: what is new to somebody is looked for with a request that leaves out what was seen (`excludeSeen`), so
such targets are judged on its lists, and chance is that of the fewer items. A target that is cold is new to everybody.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.splits import Split
from training.evaluation.metrics import TargetRanks
from training.evaluation.rankings import HoldoutRankings, RankedQueries

ALL, WARM, COLD_USERS, COLD_ITEMS, REPEAT, NEW = "all", "warm", "cold_users", "cold_items", "repeat", "new"

UNSEEN_WORDS = "targets new to their user are ranked among what the user has not had"
"""What a protocol says of the segments where it leaves seen items in."""


@dataclass(frozen=True)
class Segment:
    name: str
    users: npt.NDArray[np.bool_]  # [n_users] who is asked
    ranks: TargetRanks  # of all users, with the targets that count
    lists: RankedQueries  # what they were found in


def protocol_of(split: Split) -> str:
    """The protocol of all figures of a split, in words."""
    return split.protocol if split.mask == "all" else f"{split.protocol}; {UNSEEN_WORDS}"


def segments(split: Split, answers: HoldoutRankings) -> Iterator[Segment]:
    """The segments that hold anybody. answers: to `split.test`, by `rank_test_queries`."""
    holdout, past = split.test, split.before_test
    unseen = answers.unseen or answers
    warm = holdout.histories.lengths > 0
    for name, users in ((ALL, np.ones(len(holdout), dtype=bool)), (WARM, warm), (COLD_USERS, ~warm)):
        if users.any():
            yield Segment(name, users, answers.ranks, answers)
    cold = np.bincount(past.interactions.items, minlength=past.n_items) == 0
    parts = [(COLD_ITEMS, unseen, unseen.ranks.where(cold[unseen.ranks.items]))]
    if split.mask != "all":
        had = past.seen[holdout.users].tocoo()
        keys = answers.ranks.rows * past.n_items + answers.ranks.items
        known = np.isin(keys, had.row.astype(np.int64) * past.n_items + had.col)
        parts += [(REPEAT, answers, answers.ranks.where(known)), (NEW, unseen, unseen.ranks)]
    for name, lists, found in parts:
        users = found.n_targets > 0
        if users.any():
            yield Segment(name, users, found, lists)
