"""Profiles: histories as weighted sets of distinct items, the input of every linear family."""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store import columns as c
from feature_store.online import Histories
from training.models.contract import FloatMatrix
from training.models.lists import ListContributions

NEGLIGIBLE_DECAY = 2.0**-32
"""Items with a smaller decay factor get a weight of zero. They are below the precision of a float32 score, and the
products would be denormal numbers, which take a processor fifty times as long."""

RECENT_DAYS = 90.0
"""Half-life of a user's events with an item where users repeat items (docs/models-log.md). Not a setting, since all
linear base models of an ensemble share the same profiles."""
_MICROS = RECENT_DAYS * c.MICROS_PER_DAY


@dataclass(frozen=True, eq=False)
class Profiles:
    """A ragged batch of weighted items. Row b is the slice offsets[b]:offsets[b + 1], oldest first, items distinct.

    Do not write to its arrays: what is derived from them is cached.
    """

    items: npt.NDArray[np.int32]  # [n]
    weights: npt.NDArray[np.float32]  # [n]
    fresh: npt.NDArray[
        np.float64
    ]  # [n] sums of event weights, each doubled for every RECENT_DAYS since 1970, so that decay is one factor
    offsets: npt.NDArray[np.int64]  # [batch + 1]
    _decayed: dict[float, "Profiles"] = field(default_factory=dict, init=False, repr=False)  # by half-life
    _matrices: dict[int, sp.csr_array] = field(default_factory=dict, init=False, repr=False)  # by width

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """The batch row of every item, [n]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def sizes(self) -> npt.NDArray[np.float32]:
        """Items of each row, at least 1, float32 [batch]."""
        return np.maximum(np.diff(self.offsets), 1).astype(np.float32)

    @cached_property
    def later(self) -> npt.NDArray[np.int64]:
        """How many items of its row are newer than each item, [n]."""
        return np.repeat(self.offsets[1:], np.diff(self.offsets)) - 1 - np.arange(len(self.items))

    def decayed(self, half_life: float | None) -> "Profiles":
        """Weights times 0.5 ** (distinct later items / half_life), 0 where that is negligible. None: no decay."""
        if half_life is None:
            return self
        if half_life not in self._decayed:
            self._decayed[half_life] = self._decay(half_life)
        return self._decayed[half_life]

    def _decay(self, half_life: float) -> "Profiles":
        longest = int(self.later.max(initial=0)) + 1
        factors = _decay_factors(half_life, 1 << (longest - 1).bit_length())
        weights = (self.weights * factors[self.later]).astype(np.float32)
        return Profiles(self.items, weights, self.fresh, self.offsets)

    def recent(self, as_of: int) -> "Profiles":
        """Weights that are the sums of event weights, each halved for every RECENT_DAYS before `as_of`, microseconds.

        An event after `as_of` counts more than its weight. The weight of an item does not depend on the other items.
        """
        weights = (self.fresh * 2.0 ** (-as_of / _MICROS)).astype(np.float32)
        return Profiles(self.items, weights, self.fresh, self.offsets)

    def where(self, kept: npt.NDArray[np.bool_]) -> "Profiles":
        """The kept items, in the same rows. kept: bool [n]."""
        if kept.all():
            return self
        offsets = np.concatenate(([0], np.cumsum(kept)))[self.offsets]
        return Profiles(self.items[kept], self.weights[kept], self.fresh[kept], offsets)

    def matrix(self, n_items: int) -> sp.csr_array:
        """float32 [batch, n_items]; items at or past `n_items` are left out."""
        if n_items not in self._matrices:
            known = self.where(self.items < n_items)
            columns = (known.weights, known.items, known.offsets)
            self._matrices[n_items] = sp.csr_array(columns, shape=(len(self), n_items))
        return self._matrices[n_items]

    def contributions(self, values: FloatMatrix) -> list[ListContributions]:
        """One table per row. values: float32 [n, k], the contributions of the n items."""
        return [
            ListContributions(self.items[start:end], values[start:end])
            for start, end in pairwise(self.offsets.tolist())
        ]

    def tabulated(self, contributions: list[ListContributions], k: int) -> FloatMatrix:
        """The reverse of `contributions`: float32 [n, k], zero for items of the row that its table lacks."""
        values = np.zeros((len(self.items), k), dtype=np.float32)
        for (start, end), found in zip(pairwise(self.offsets.tolist()), contributions, strict=True):
            items = self.items[start:end]
            order = np.argsort(items)
            values[start + order[np.searchsorted(items, found.items, sorter=order)]] = found.values
        return values


@lru_cache(maxsize=64)
def _decay_factors(half_life: float, n: int) -> npt.NDArray[np.float64]:
    """0.5 ** (age / half_life) for the ages 0 to n - 1, 0 where that is negligible, float64 [n]."""
    factors = 0.5 ** (np.arange(n) / half_life)
    factors[factors < NEGLIGIBLE_DECAY] = 0
    return factors


def build_profiles(histories: Histories, n_items: int, half_life: float | None = None) -> Profiles:
    """The distinct items of each history, ordered by their newest event.

    The weight of an item is log2(1 + the sum of its events' weights), so that the tenth purchase adds less than the
    first, times 0.5 ** (distinct later items / half_life).

    Args:
        histories: a batch; positions at or past `n_items` raise IndexError.
        n_items: the catalogue's size.
        half_life: in distinct items; None: no decay.
    """
    if len(histories.items) and not 0 <= histories.items.min() <= histories.items.max() < n_items:
        raise IndexError(f"a history names an item outside the catalogue of {n_items}")
    found = _CACHE.get(histories)
    if found is None:
        found = _CACHE[histories] = _build(histories)
    return found.decayed(half_life)


_CACHE: WeakKeyDictionary[Histories, Profiles] = WeakKeyDictionary()
"""A model scores histories and then explains its rankings, and base models of an ensemble read the same histories."""


def _build(histories: Histories) -> Profiles:
    keys = histories.rows * (histories.items.max(initial=0) + 1) + histories.items
    order = np.argsort(keys, kind="stable")  # the events of an item side by side, oldest first
    last = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[order][1:], keys[order][:-1], out=last[:-1])
    newest = order[last]
    mass, fresh = np.zeros((2, len(keys)))
    item, weights = np.cumsum(last) - last, histories.weights[order]
    mass[newest] = np.bincount(item, weights, len(newest))
    fresh[newest] = np.bincount(item, weights * 2.0 ** (histories.timestamps[order] / _MICROS), len(newest))
    kept = np.zeros(len(keys), dtype=bool)
    kept[newest] = True
    offsets = np.concatenate(([0], np.cumsum(kept)))[histories.offsets]
    weights = np.log2(1 + mass[kept]).astype(np.float32)
    return Profiles(histories.items[kept], weights, fresh[kept], offsets)
