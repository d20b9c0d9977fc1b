"""Histories as weighted sets of distinct items: what every linear family reads."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store.online import Histories
from training.models.contract import FloatMatrix, ListContributions

FORGOTTEN = 2.0**-32
"""An item that ageing leaves less than this of counts nothing. Beside what is new a float32 score cannot hold it, and
what would be left of old items are denormal numbers, whose products take a processor fifty times as long."""


@dataclass(frozen=True)
class Profiles:
    """A ragged batch of weighted items. Row b is the slice offsets[b]:offsets[b + 1], oldest first, items distinct."""

    items: npt.NDArray[np.int32]  # [n]
    weights: npt.NDArray[np.float32]  # [n]
    offsets: npt.NDArray[np.int64]  # [batch + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The batch row of every item, [n]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def sizes(self) -> npt.NDArray[np.float32]:
        """Items of each row, at least 1, float32 [batch]."""
        return np.maximum(np.diff(self.offsets), 1).astype(np.float32)

    def aged(self, half_life: float | None) -> "Profiles":
        """Weights times 0.5 ** (distinct items after it / half_life), 0 where FORGOTTEN. None: age does not count."""
        if half_life is None:
            return self
        after = np.repeat(self.offsets[1:], np.diff(self.offsets)) - 1 - np.arange(len(self.items))
        left = 0.5 ** (after / half_life)
        left[left < FORGOTTEN] = 0
        return replace(self, weights=(self.weights * left).astype(np.float32))

    def where(self, kept: npt.NDArray[np.bool_]) -> "Profiles":
        """Those of the items, in the same rows. kept: bool [n]."""
        if kept.all():
            return self
        return Profiles(self.items[kept], self.weights[kept], np.concatenate(([0], np.cumsum(kept)))[self.offsets])

    def matrix(self, n_items: int) -> sp.csr_array:
        """float32 [batch, n_items]; items at or past `n_items` are left out."""
        known = self.where(self.items < n_items)
        return sp.csr_array((known.weights, known.items, known.offsets), shape=(len(self), n_items))

    def contributions(self, values: FloatMatrix) -> list[ListContributions]:
        """Values of the items, float32 [n, k], as one table per row."""
        return [
            ListContributions(self.items[start:end], values[start:end])
            for start, end in pairwise(self.offsets.tolist())
        ]

    def tabulated(self, contributions: list[ListContributions], k: int) -> FloatMatrix:
        """The reverse, float32 [n, k], zero where a table does not name an item. Tables name items of their rows."""
        values = np.zeros((len(self.items), k), dtype=np.float32)
        for (start, end), found in zip(pairwise(self.offsets.tolist()), contributions, strict=True):
            items = self.items[start:end]
            order = np.argsort(items)
            values[start + order[np.searchsorted(items, found.items, sorter=order)]] = found.values
        return values


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
    keys = histories.rows * n_items + histories.items
    order = np.argsort(keys, kind="stable")  # the events of an item side by side, oldest first
    last = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[order][1:], keys[order][:-1], out=last[:-1])
    newest = order[last]
    mass = np.zeros(len(keys))
    mass[newest] = np.bincount(np.cumsum(last) - last, histories.weights[order], len(newest))
    kept = np.zeros(len(keys), dtype=bool)
    kept[newest] = True
    offsets = np.concatenate(([0], np.cumsum(kept)))[histories.offsets]
    return Profiles(histories.items[kept], np.log2(1 + mass[kept]).astype(np.float32), offsets).aged(half_life)
