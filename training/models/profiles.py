"""Histories as weighted sets of distinct items: what every linear family reads."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store.online import Histories


@dataclass(frozen=True)
class Profiles:
    """A ragged batch of weighted items. Row b is the slice offsets[b]:offsets[b + 1], oldest first, items distinct."""

    items: npt.NDArray[np.int32]  # [n]
    weights: npt.NDArray[np.float32]  # [n]
    offsets: npt.NDArray[np.int64]  # [batch + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def aged(self, half_life: float | None) -> "Profiles":
        """Weights times 0.5 ** (distinct items after it / half_life). None: age does not count."""
        if half_life is None:
            return self
        after = np.repeat(self.offsets[1:], np.diff(self.offsets)) - 1 - np.arange(len(self.items))
        return replace(self, weights=(self.weights * 0.5 ** (after / half_life)).astype(np.float32))

    def row(self, row: int) -> "Profiles":
        """That of one history alone."""
        span = slice(self.offsets[row], self.offsets[row + 1])
        offsets = np.array([0, span.stop - span.start], dtype=np.int64)
        return Profiles(self.items[span], self.weights[span], offsets)

    def matrix(self, n_items: int) -> sp.csr_array:
        """float32 [batch, n_items]; items at or past `n_items` are left out."""
        known = self.items < n_items
        if known.all():
            return sp.csr_array((self.weights, self.items, self.offsets), shape=(len(self), n_items))
        offsets = np.concatenate(([0], np.cumsum(known)))[self.offsets]
        return sp.csr_array((self.weights[known], self.items[known], offsets), shape=(len(self), n_items))


def build_profiles(histories: Histories, n_items: int, half_life: float | None = None) -> Profiles:
    """The distinct items of each history, placed by their newest event.

    The weight of an item is log2(1 + the sum of its events' weights), so that the tenth purchase adds less than the
    first, times 0.5 ** (distinct items after it / half_life).

    Args:
        histories: a batch; positions at or past `n_items` raise IndexError.
        n_items: the catalogue's size.
        half_life: in distinct items; None: age does not count.
    """
    if len(histories.items) and not 0 <= histories.items.min() <= histories.items.max() < n_items:
        raise IndexError(f"a history names an item outside the catalogue of {n_items}")
    keys, event_keys = np.unique(histories.rows * n_items + histories.items, return_inverse=True)
    mass = np.log2(1 + np.bincount(event_keys, histories.weights, len(keys)))
    newest = np.zeros(len(keys), dtype=np.int64)
    np.maximum.at(newest, event_keys, np.arange(len(event_keys)))
    order = np.argsort(newest)  # events are grouped by row, oldest first; so are their items then
    rows = keys[order] // n_items
    offsets = np.searchsorted(rows, np.arange(len(histories) + 1)).astype(np.int64)
    profiles = Profiles((keys[order] % n_items).astype(np.int32), mass[order].astype(np.float32), offsets)
    return profiles.aged(half_life)
