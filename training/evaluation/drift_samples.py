"""The samples that drift compares: what users did on each day, by popularity, label and length of the item's vector."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store.daily_counts import DailyCounts
from training.evaluation.drift import (
    REFERENCE_WEEKS,
    Counts,
    DailyMeasure,
    Floats,
    same_weekdays,
    share,
    stability,
    volume,
)

POPULARITY_BINS = 10
"""Bins of items that had about equal numbers of events; one more holds items that had none."""
RANKED_DAYS = 7 * REFERENCE_WEEKS
"""Days before a day by whose events its items are ranked."""
NORM_BINS = 10
SHOWN_LABELS = 20
"""Labels with a bin of their own; the others share one."""


@dataclass(frozen=True)
class DriftThresholds:
    """From what size on a change matters, however sure it is."""

    psi: float = 0.1
    volume_drop: float = 0.4
    unknown_items: float = 0.2


def daily_measures(
    counts: DailyCounts, thresholds: DriftThresholds, norms: npt.NDArray[np.float32] | None = None
) -> list[DailyMeasure]:
    """All measures of the days that are counted. `categories` comes once per field, the others once.

    norms: float32 [n_items] lengths of the item vectors that serve, NaN for an item that the model does not know; None
        where no model has any.
    """
    psi, items = thresholds.psi, counts.items
    samples = {
        "popularity": by_popularity(items),
        "activity": Samples.of(counts.activity),
        "types": Samples.of(counts.types),
    }
    if norms is not None:
        samples["norms"] = by_norm(items, norms)
    fields = [(each.field, by_label(items, each.shares)) for each in counts.labels]
    return [
        volume(counts.events, thresholds.volume_drop),
        *(stability(name, each.current, each.reference, psi) for name, each in samples.items()),
        *(stability("categories", each.current, each.reference, psi, len(fields), name) for name, each in fields),
        share("unknown_items", counts.unknown, counts.events, thresholds.unknown_items),
    ]


@dataclass(frozen=True, eq=False)
class Samples:
    """Events of each day by bin, and those that each day is compared with. Both: [n_days, n_bins]."""

    current: Counts
    reference: Counts

    @classmethod
    def of(cls, counts: Counts) -> "Samples":
        """Each day beside the same weekday of the weeks before."""
        return cls(counts, same_weekdays(counts))


def by_popularity(items: sp.csr_array) -> Samples:
    """Events by how popular their item was in the weeks before.

    Items are ranked by the four weeks before the day, without the days that it is compared with: those would look more
    popular than they are in the ranking that they are part of, and today would not (selection bias).

    items: int64 [n_days, n_items] events of each item.
    """
    n_days, n_items = items.shape
    current, reference = (np.zeros((n_days, POPULARITY_BINS + 1)) for _ in range(2))
    weeks = range(7, RANKED_DAYS + 1, 7)
    window = np.zeros(n_items, dtype=np.int64)  # events of the RANKED_DAYS before the day
    for day in range(n_days):
        compared = [day - before for before in weeks if day >= before]
        ranked = window.copy()
        for other in compared:
            start, end = items.indptr[other], items.indptr[other + 1]
            ranked[items.indices[start:end]] -= items.data[start:end]
        bins = _equal_bins(ranked)
        current[day] = _in_bins(items, day, bins)
        for other in compared:
            reference[day] += _in_bins(items, other, bins)
        _add(window, items, day, 1)
        if day >= RANKED_DAYS:
            _add(window, items, day - RANKED_DAYS, -1)
    counted = same_weekdays(np.asarray(items.sum(axis=1)).ravel()) > 0
    return Samples(current, np.where(counted[:, None], reference, 0.0))


def by_label(items: sp.csr_array, shares: sp.csr_array) -> Samples:
    """Events by the labels of their item; one with several labels counts in parts. The last bin has items without any.

    items: int64 [n_days, n_items]; shares: float64 [n_items, n_labels], rows that sum to 1 or 0.
    """
    events = np.asarray((items @ shares).todense())
    order = np.argsort(-events.sum(axis=0), kind="stable")
    rest = events[:, order[SHOWN_LABELS:]].sum(axis=1)
    none = np.maximum(np.asarray(items.sum(axis=1)).ravel() - events.sum(axis=1), 0)
    return Samples.of(np.column_stack((events[:, order[:SHOWN_LABELS]], rest, none)))


def by_norm(items: sp.csr_array, norms: Floats | npt.NDArray[np.float32]) -> Samples:
    """Events by the length of their item's vector, in bins with equal numbers of items.

    norms: [n_items], NaN where the model does not know the item, which has a bin of its own.
    """
    known = ~np.isnan(norms)
    edges = np.quantile(norms[known], np.linspace(0, 1, NORM_BINS + 1)[1:-1]) if known.any() else np.empty(0)
    bins = np.where(known, np.searchsorted(edges, norms), NORM_BINS)
    n_items = len(norms)
    indicator = sp.csr_array((np.ones(n_items), (np.arange(n_items), bins)), shape=(n_items, NORM_BINS + 1))
    return Samples.of(np.asarray((items @ indicator).todense()))


def _equal_bins(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bin of each item: items by falling count, cut where the events reach each tenth; the last one has no events.

    Items with equal counts share a bin.
    """
    per_count = np.bincount(counts)  # items that have each count
    mass = per_count * np.arange(len(per_count))
    above = mass[::-1].cumsum()[::-1] - mass  # events of items with a larger count
    bin_of_count = np.minimum(above * POPULARITY_BINS // max(int(mass.sum()), 1), POPULARITY_BINS - 1)
    bin_of_count[0] = POPULARITY_BINS
    found: npt.NDArray[np.int64] = bin_of_count[counts]
    return found


def _in_bins(items: sp.csr_array, day: int, bins: npt.NDArray[np.int64]) -> Floats:
    start, end = items.indptr[day], items.indptr[day + 1]
    return np.bincount(bins[items.indices[start:end]], items.data[start:end], POPULARITY_BINS + 1).astype(np.float64)


def _add(window: npt.NDArray[np.int64], items: sp.csr_array, day: int, sign: int) -> None:
    start, end = items.indptr[day], items.indptr[day + 1]
    window[items.indices[start:end]] += sign * items.data[start:end]
