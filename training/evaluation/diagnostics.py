"""What the figures of a report do not show: which data they are of, whether higher scores are chosen more often, and
whether hits come from popular items alone.

Everything is a count or a share over many users, so that it names no user and no item.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.dataset import Dataset
from training.data.splits import Split
from training.evaluation.calibration import SCORE_MAP_USERS, fit_score_map
from training.evaluation.rankings import LIST_LENGTH, HoldoutRankings
from training.models.contract import Recommender
from training.models.lists import NO_ITEM

MAX_QUERIES = 512
"""Test queries whose scores are compared with what was chosen."""
BANDS = 10
"""Bands of scores in [0, 1], and groups of items that hold a tenth of the events each."""
MIN_PAIRS = 50
"""Pairs of a query and an item that a band needs before a share of it is worth showing."""
_ROWS_AT_ONCE = 64
_FIRST_DATE = int(np.datetime64("1980-01-01", "us").astype(np.int64))
"""Timestamps before it are positions in a file and no times."""


@dataclass(frozen=True)
class TrainingData:
    """The size of the data that a family was trained on. Days are empty where timestamps are no times."""

    users: int
    items: int
    events: int
    first_day: str
    last_day: str
    evaluated_users: int

    @classmethod
    def of(cls, dataset: Dataset, split: Split) -> "TrainingData":
        """The size of a data set, and of the test window of its split."""
        times = dataset.interactions.timestamps
        first, last = "", ""
        if len(times) and int(times.min()) >= _FIRST_DATE:
            first, last = (str(np.datetime64(int(end), "us"))[:10] for end in (times.min(), times.max()))
        return cls(dataset.n_users, dataset.n_items, len(times), first, last, len(split.test))


@dataclass(frozen=True)
class Reliability:
    """The share of recommendable items that were chosen, by their score in [0, 1]. Thin bands are left out."""

    scores: tuple[float, ...]  # the middle of each band
    chosen: tuple[float, ...]
    pairs: tuple[int, ...]  # of a query and an item, that the share is of


@dataclass(frozen=True)
class PopularityShares:
    """How choices, lists and hits spread over items. Groups go from the most popular items to those without any event.

    Each of the first ten groups holds a tenth of the training events; each field sums to 1, or to 0 where there is
    nothing to share.
    """

    targets: tuple[float, ...]
    listed: tuple[float, ...]
    hits: tuple[float, ...]


@dataclass(frozen=True)
class Diagnostics:
    """What the card and the plots of a training show beside its report. None where the test window is empty."""

    data: TrainingData
    reliability: Reliability | None = None
    popularity: PopularityShares | None = None


def diagnose(
    model: Recommender, dataset: Dataset, split: Split, rankings: HoldoutRankings | None, seed: int = 0
) -> Diagnostics:
    """Measure an evaluated model on the test window.

    Args:
        model: fitted on `split.before_test`.
        dataset: the whole snapshot.
        rankings: of `split.test` by this model; None where that window is empty.
        seed: draws the queries of the reliability.
    """
    data = TrainingData.of(dataset, split)
    if rankings is None:
        return Diagnostics(data)
    return Diagnostics(data, _reliability(model, split, seed), _popularity_shares(split, rankings))


def _reliability(model: Recommender, split: Split, seed: int) -> Reliability:
    score_map = fit_score_map(model, split.before_test.sampled_histories(SCORE_MAP_USERS, seed))
    sample = split.test.sample(MAX_QUERIES, seed)
    pairs, chosen = np.zeros(BANDS, np.int64), np.zeros(BANDS, np.int64)
    for rows in sample.batches(_ROWS_AT_ONCE):
        batch = sample.take(rows)
        allowed = ~batch.masked.toarray()
        scores = score_map(model.score(batch.histories)[allowed])
        bands = np.minimum((scores * BANDS).astype(np.int64), BANDS - 1)
        pairs += np.bincount(bands, minlength=BANDS)
        chosen += np.bincount(bands[batch.targets.toarray()[allowed]], minlength=BANDS)
    kept = pairs >= MIN_PAIRS
    middles = (np.arange(BANDS) + 0.5) / BANDS
    return Reliability(
        tuple(middles[kept].tolist()), tuple((chosen[kept] / pairs[kept]).tolist()), tuple(pairs[kept].tolist())
    )


def _popularity_shares(split: Split, rankings: HoldoutRankings) -> PopularityShares:
    group_of = popularity_groups(np.bincount(split.before_test.interactions.items, minlength=split.before_test.n_items))
    ranks, top = rankings.ranks, rankings.top
    return PopularityShares(
        *(
            _shares(group_of[items])
            for items in (ranks.items, top[top != NO_ITEM], ranks.items[ranks.ranks <= LIST_LENGTH])
        )
    )


def popularity_groups(events: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The group of each item, int64 [n_items]: 0 to 9 from the most popular, 10 for an item without events.

    events: int64 [n_items]. An item belongs to the tenth of all events that its first event falls in.
    """
    order = np.argsort(-events, kind="stable")
    before = np.cumsum(events[order]) - events[order]
    groups = np.empty(len(events), np.int64)
    groups[order] = np.minimum(before * BANDS // max(1, int(events.sum())), BANDS - 1)
    return np.where(events > 0, groups, BANDS)


def _shares(groups: npt.NDArray[np.int64]) -> tuple[float, ...]:
    counts = np.bincount(groups, minlength=BANDS + 1)
    return tuple((counts / max(1, int(counts.sum()))).tolist())
