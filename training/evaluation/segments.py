"""Segments: the users and targets that a figure is about.

    all         every evaluated user
    warm        users who have a history at the time of the query
    cold_users  users who have none
    cold_items  targets without an event before the test window, ranked among the items that the user has not seen
    repeat      targets that their user had before, ranked among all items that may be recommended
    new         targets that their user did not have before, ranked among the items that the user has not seen

The last two exist only where the ranking leaves seen items in. There, items that a user chooses repeatedly take most
places of the lists. A request for something new leaves out seen items (`excludeSeen`), so new targets are judged on
lists without them, and the figures of a random order are those expected among the remaining items. A cold target is
new to every user, so it is judged on these lists too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.splits import Split
from training.evaluation.metrics import TargetRanks
from training.evaluation.rankings import HoldoutRankings, RankedQueries
from training.models.cold_start.items import cold_items

ALL, WARM, COLD_USERS, COLD_ITEMS, REPEAT, NEW = "all", "warm", "cold_users", "cold_items", "repeat", "new"

UNSEEN_WORDS = "targets new to their user are ranked among what the user has not had"
"""Added to the protocol where the ranking leaves seen items in."""


@dataclass(frozen=True)
class Segment:
    """One segment, with the ranks and the lists that its metrics are computed from."""

    name: str
    users: npt.NDArray[np.bool_]  # [n_users] who is in the segment
    ranks: TargetRanks  # of all users, with the targets of the segment
    lists: RankedQueries  # the recommended lists that the targets are judged on


def protocol_of(split: Split) -> str:
    """The protocol of all figures of a split, in words."""
    words = [split.protocol]
    if split.test.drawn_from is not None:
        words.append(
            f"{len(split.test):,} of {split.test.drawn_from:,} users who chose an item in the test window, drawn with "
            "a fixed seed; intervals are those of this sample"
        )
    if split.mask != "all":
        words.append(UNSEEN_WORDS)
    return "; ".join(words)


def segments(split: Split, rankings: HoldoutRankings) -> Iterator[Segment]:
    """The segments that are not empty. rankings: of `split.test`, by `rank_test_queries`."""
    holdout, past = split.test, split.before_test
    unseen = rankings.unseen or rankings
    warm = holdout.histories.lengths > 0
    for name, users in ((ALL, np.ones(len(holdout), dtype=bool)), (WARM, warm), (COLD_USERS, ~warm)):
        if users.any():
            yield Segment(name, users, rankings.ranks, rankings)
    cold = cold_items(past.interactions.items, past.n_items)
    parts = [(COLD_ITEMS, unseen, unseen.ranks.where(cold[unseen.ranks.items]))]
    if split.mask != "all":
        had = past.seen[holdout.users].tocoo()
        keys = rankings.ranks.rows * past.n_items + rankings.ranks.items
        known = np.isin(keys, had.row.astype(np.int64) * past.n_items + had.col)
        parts += [(REPEAT, rankings, rankings.ranks.where(known)), (NEW, unseen, unseen.ranks)]
    for name, lists, found in parts:
        users = found.n_targets > 0
        if users.any():
            yield Segment(name, users, found, lists)
