"""Metrics of the lists themselves, which do not depend on what users chose.

Lists are int32 [n_users, k], padded with NO_ITEM.

    coverage             distinct items in all lists, over the catalogue: aggregate diversity as a share (Ge,
                         Delgado-Battenfeld and Jannach, 2010)
    gini                 1 / (n - 1) * sum over items j, least listed first, of (2 j - n - 1) * p(j), with p(j) the
                         share of all places that item j holds: 0 where all are listed alike, 1 where one item holds
                         every place (Shani and Gunawardana, 2011)
    novelty              mean over the list of -log2(users who know the item / users), in bits; an item nobody knows
                         counts as if one user did (Vargas and Castells, 2011)
    intra_list_diversity mean over pairs in the list of 1 - cosine of the two items, each described by who knows it
                         (Ziegler et al., 2005); it is measured alike for every model, not by the model's own vectors

"Knows" means: has an event with the item before the test window.
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.models.contract import Positions
from training.models.lists import NO_ITEM

Floats = npt.NDArray[np.float64]
_ROWS_AT_ONCE = 512


def listings(top: Positions, n_items: int) -> sp.csr_array:
    """float64 [n_users, n_items]: 1 where an item is in a user's list."""
    listed = top != NO_ITEM
    offsets = np.concatenate(([0], np.cumsum(listed.sum(axis=1))))
    return sp.csr_array((np.ones(int(offsets[-1])), top[listed], offsets), shape=(len(top), n_items))


def coverage(counts: Floats, n_items: int) -> Floats:
    """The share of the catalogue that is in any list, [...].

    counts: [n_listed, ...] how often each listed item is listed. The other items of n_items are in no list.
    """
    return (counts > 0).sum(axis=0) / n_items


def gini(counts: Floats, n_items: int) -> Floats:
    """How unevenly the places of all lists are shared among the items, [...]. counts: as in `coverage`."""
    if n_items == 1:
        return np.zeros(counts.shape[1:])
    ascending = np.sort(counts, axis=0)
    place = np.arange(n_items - len(counts) + 1, n_items + 1)  # items that are never listed come first
    weighted = np.tensordot(2 * place - n_items - 1, ascending, axes=1)
    return np.asarray(weighted / ((n_items - 1) * counts.sum(axis=0)))


def novelty(top: Positions, seen: sp.csr_array) -> Floats:
    """float64 [n_users]; NaN for an empty list. seen: bool [n_knowing, n_items], who knows what."""
    known_by = np.maximum(_known_by(seen), 1)
    n_users = max(1, int((np.diff(seen.indptr) > 0).sum()))
    bits = listings(top, seen.shape[1]) @ np.log2(n_users / known_by)
    return _share(bits, (top != NO_ITEM).sum(axis=1))


def intra_list_diversity(top: Positions, seen: sp.csr_array) -> Floats:
    """float64 [n_users]; NaN for a list of fewer than two items. seen: as in `novelty`.

    No pair is formed: the cosines of all pairs add up to half of (the squared length of the sum of the unit vectors
    minus the number of vectors).
    """
    known_by = _known_by(seen)
    scale = np.divide(1.0, np.sqrt(known_by), out=np.zeros(len(known_by)), where=known_by > 0)
    listed = listings(top, seen.shape[1])
    vectors = sp.csr_array(sp.diags_array(scale) @ seen.T.astype(np.float64))  # [n_items, n_knowing], unit or zero
    squares = np.empty(len(top))
    for start in range(0, len(top), _ROWS_AT_ONCE):
        together = listed[start : start + _ROWS_AT_ONCE] @ vectors
        squares[start : start + _ROWS_AT_ONCE] = together.multiply(together).sum(axis=1)
    cosines = (squares - listed @ (known_by > 0).astype(np.float64)) / 2
    sizes = (top != NO_ITEM).sum(axis=1)
    return 1 - _share(cosines, sizes * (sizes - 1) // 2)


def _known_by(seen: sp.csr_array) -> npt.NDArray[np.int64]:
    return np.bincount(seen.indices, minlength=seen.shape[1])


def _share(values: Floats, of: npt.NDArray[np.int64]) -> Floats:
    return np.divide(values, of, out=np.full(len(values), np.nan), where=of > 0)
