"""Ranked lists, and what contributes to their items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatMatrix = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int32]

NO_ITEM = -1
"""Padding of a ranked list that is shorter than k."""


@dataclass(frozen=True)
class Ranking:
    """Ranked lists, best first; equal scores in order of item position; padded with NO_ITEM / -inf."""

    items: Positions  # [batch, k]
    scores: FloatMatrix  # [batch, k]


@dataclass(frozen=True)
class Contributions:
    """How much each item of one history contributes to one item's raw score; empty where nothing reliable is known."""

    items: Positions  # [n] positions of distinct history items
    values: npt.NDArray[np.float32]  # [n] in units of the raw score, largest first


@dataclass(frozen=True)
class ListContributions:
    """How much each item of one history contributes to the raw scores of one ranked list."""

    items: Positions  # [n] positions of distinct history items
    values: npt.NDArray[np.float32]  # [n, k] in units of the raw score; zero under NO_ITEM and where nothing is known

    def of(self, column: int) -> Contributions:
        """All contributions to the item at one place of the list, largest first."""
        order = np.argsort(-self.values[:, column], kind="stable")
        return Contributions(self.items[order], self.values[order, column])


def gather_contributions(
    explained: Sequence[Contributions], columns: npt.NDArray[np.int64], k: int
) -> ListContributions:
    """The contributions to n items of one list as one table. columns: int64 [n], the place of each in the list."""
    sources = np.unique(np.concatenate([one.items for one in explained] or [np.empty(0, np.int32)]))
    values = np.zeros((len(sources), k), dtype=np.float32)
    for column, one in zip(columns, explained, strict=True):
        values[np.searchsorted(sources, one.items), column] = one.values
    return ListContributions(sources.astype(np.int32), values)


def strongest_sources(contributions: Sequence["ListContributions"], shape: tuple[int, ...], top: int) -> Positions:
    """The history items that contribute most to each listed item, int32 [batch, k, top].

    Largest first, the first in the order of the contributions where equal; positive ones only, padded with NO_ITEM.
    shape: (batch, k) of the lists.
    """
    batch, k = shape
    found = np.full((batch, k, top), NO_ITEM, dtype=np.int32)
    widest = max((len(one.items) for one in contributions), default=0)
    if not widest or not k:
        return found
    sources = np.full((batch, widest), NO_ITEM, dtype=np.int32)
    values = np.zeros((batch, k, widest), dtype=np.float32)
    for row, one in enumerate(contributions):
        sources[row, : len(one.items)] = one.items
        values[row, :, : len(one.items)] = one.values.T
    flat = values.reshape(batch * k, widest)
    lists = np.arange(batch * k)
    owners = lists // k
    for place in range(top):
        best = flat.argmax(axis=1)
        largest = flat[lists, best]
        found[:, :, place] = np.where(largest > 0, sources[owners, best], NO_ITEM).reshape(batch, k)
        flat[lists, best] = 0
    return found


def top_k(scores: FloatMatrix, k: int) -> Ranking:
    """Exact top k of each row, stable: by score descending, then position ascending. -inf never enters a list.

    scores: float [batch, n]. Returns lists of length min(k, n), padded with NO_ITEM / -inf.
    """
    batch, n = scores.shape
    k = min(k, n)
    items = np.full((batch, k), NO_ITEM, dtype=np.int32)
    values = np.full((batch, k), -np.inf, dtype=np.float32)
    for row, whole in enumerate(scores if k else ()):
        # All that reach a bound are sorted, so that ties are cut by position. Row by row, since most rows of a large
        # catalogue are passed over and not copied.
        candidates = (whole >= _bound(whole, k)).nonzero()[0]  # ascending positions
        found = whole[candidates]
        if len(candidates) > _MAX_SORTED:
            kept = found >= np.partition(found, len(found) - k)[len(found) - k]
            candidates, found = candidates[kept], found[kept]
        order = (-found).argsort(kind="stable")[:k]
        best, found = candidates[order], found[order]
        if found[-1] == -np.inf:
            listed = found != -np.inf
            best, found = best[listed], found[listed]
        items[row, : len(best)] = best
        values[row, : len(best)] = found
    return Ranking(items, values)


def reaching(scores: npt.NDArray[np.float32], k: int, below: float) -> npt.NDArray[np.int64]:
    """Ascending positions of the scores that are at most `below` under the k-th largest one, and few more.

    -inf is left out. scores: [n].
    """
    k = min(k, len(scores))
    bound = _bound(scores, k) - np.float32(below) if k else np.float32(np.inf)
    return ((scores >= bound) & (scores != -np.inf)).nonzero()[0]


_GROUPS = 16
_MAX_SORTED = 4_096


def _bound(scores: npt.NDArray[np.float32], k: int) -> np.float32:
    """A number that at least k of the scores reach, and few more. scores: [n], 1 <= k <= n.

    It is the k-th largest of the maxima of many groups of scores: a pass of maxima costs a twentieth of a partition.
    """
    groups = max(256, _GROUPS * k)
    size = len(scores) // groups
    if size >= 2:
        scores = np.maximum.reduce(scores[: size * groups].reshape(size, groups), axis=0)
    return np.partition(scores, len(scores) - k)[len(scores) - k]
