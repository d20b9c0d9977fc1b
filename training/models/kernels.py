"""Kernels: item-to-item weights K[j, i] of history item j for scored item i, in the form that fits their size."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.models.contract import FloatMatrix, Positions

Arrays = Mapping[str, npt.NDArray[np.generic]]
Offsets = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


class Kernel(ABC):
    """An item-to-item matrix [size, size]."""

    form: ClassVar[str]

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of items."""

    @abstractmethod
    def propagate(self, profiles: sp.csr_array) -> FloatMatrix:
        """profiles @ K. profiles: float32 [batch, size]; returns float32 [batch, size]."""

    @abstractmethod
    def add_products(self, items: Positions, weights: Weights, offsets: Offsets, scores: FloatMatrix) -> None:
        """Add what `propagate` returns to `scores`, float32 [batch, size], for profiles that are no sparse matrix yet.

        To make a sparse matrix of the profile of one user takes longer than to multiply it. items: int32 [n] in
        [0, size), of row b the slice offsets[b]:offsets[b + 1]; weights: float32 [n].
        """

    @abstractmethod
    def pairs(self, items: Positions, offsets: Offsets, lists: Positions) -> FloatMatrix:
        """K[j, i] for each of n history items j and the m items i of its row's list, float32 [n, m].

        items: int32 [n], of row b the slice offsets[b]:offsets[b + 1]; lists: int32 [batch, m]; all in [0, size).
        """

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """The kernel factor * K."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """The arrays that `from_arrays` restores the kernel from."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The kernel whose `arrays` these are."""


class Dense(Kernel):
    """A weight for every pair: float32 [size, size]."""

    form = "dense"

    def __init__(self, weights: FloatMatrix) -> None:
        """weights: float32 [size, size], in any order of memory."""
        self.weights = _by_row(weights)

    @property
    def size(self) -> int:
        return len(self.weights)

    def propagate(self, profiles: sp.csr_array) -> FloatMatrix:
        return profiles @ self.weights

    def add_products(self, items: Positions, weights: Weights, offsets: Offsets, scores: FloatMatrix) -> None:
        for row, (start, end) in enumerate(pairwise(offsets.tolist())):
            if start < end:
                scores[row] += weights[start:end] @ self.weights.take(items[start:end], axis=0)

    def pairs(self, items: Positions, offsets: Offsets, lists: Positions) -> FloatMatrix:
        starts = items.astype(np.int64) * self.size
        return self.weights.take(starts[:, None] + np.repeat(lists, np.diff(offsets), axis=0))

    def scaled(self, factor: float) -> Self:
        return type(self)(self.weights * np.float32(factor))

    def arrays(self) -> Arrays:
        return {"weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        return cls(arrays["weights"].astype(np.float32, copy=False))


class Sparse(Kernel):
    """A weight for few pairs, zero for the others: CSR of float32 with sorted indices."""

    form = "sparse"

    def __init__(self, weights: sp.csr_array) -> None:
        weights.sort_indices()
        self.weights = weights

    @property
    def size(self) -> int:
        return self.weights.shape[0]

    def propagate(self, profiles: sp.csr_array) -> FloatMatrix:
        return (profiles @ self.weights).toarray()

    def add_products(self, items: Positions, weights: Weights, offsets: Offsets, scores: FloatMatrix) -> None:
        for row, (start, end) in enumerate(pairwise(offsets.tolist())):
            if start < end:
                scores[row] += _combined(self.weights, items[start:end], weights[start:end])

    def pairs(self, items: Positions, offsets: Offsets, lists: Positions) -> FloatMatrix:
        found = np.zeros((len(items), lists.shape[1]), dtype=np.float32)
        column_of = np.zeros(self.size, dtype=np.int32)  # 1 + the column among the distinct items of a list
        for row, (start, end) in enumerate(pairwise(offsets.tolist())):
            distinct, columns = np.unique(lists[row], return_inverse=True)
            column_of[distinct] = np.arange(1, len(distinct) + 1)
            entries, lengths = _entries(self.weights, items[start:end])
            held = column_of.take(self.weights.indices.take(entries))
            hits = held.nonzero()[0]
            values = np.zeros((end - start, len(distinct)), dtype=np.float32)
            sources = np.repeat(np.arange(end - start), lengths)
            values[sources[hits], held[hits] - 1] = self.weights.data[entries[hits]]
            found[start:end] = values[:, columns]
            column_of[distinct] = 0
        return found

    def scaled(self, factor: float) -> Self:
        return type(self)(sp.csr_array(self.weights * np.float32(factor)))

    def arrays(self) -> Arrays:
        return {"data": self.weights.data, "indices": self.weights.indices, "indptr": self.weights.indptr}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        size = len(arrays["indptr"]) - 1
        return cls(sp.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(size, size)))


class Factors(Kernel):
    """K = left @ right.T, both float32 [size, d]."""

    form = "factors"

    def __init__(self, left: FloatMatrix, right: FloatMatrix) -> None:
        """left, right: float32 [size, d], in any order of memory."""
        self.left, self.right = _by_row(left), _by_row(right)

    @property
    def size(self) -> int:
        return len(self.left)

    def propagate(self, profiles: sp.csr_array) -> FloatMatrix:
        return (profiles @ self.left) @ self.right.T

    def add_products(self, items: Positions, weights: Weights, offsets: Offsets, scores: FloatMatrix) -> None:
        scores += self.fold_in(items, weights, offsets) @ self.right.T

    def fold_in(self, items: Positions, weights: Weights, offsets: Offsets) -> FloatMatrix:
        """The factors of each profile, float32 [batch, d]; see `add_products`."""
        users = np.zeros((len(offsets) - 1, self.left.shape[1]), dtype=np.float32)
        for row, (start, end) in enumerate(pairwise(offsets.tolist())):
            if start < end:
                np.dot(weights[start:end], self.left.take(items[start:end], axis=0), out=users[row])
        return users

    @cached_property
    def largest_norm(self) -> float:
        """The largest length of a row of `right`: a product is at most this times the length of the vector."""
        return float(np.sqrt(np.einsum("nd,nd->n", self.right, self.right).max(initial=0)))

    def pairs(self, items: Positions, offsets: Offsets, lists: Positions) -> FloatMatrix:
        left, right = self.left[items], self.right[lists]  # [n, d], [batch, m, d]
        found = np.empty((len(items), lists.shape[1]), dtype=np.float32)
        for row, (start, end) in enumerate(pairwise(offsets.tolist())):
            np.matmul(left[start:end], right[row].T, out=found[start:end])
        return found

    def scaled(self, factor: float) -> Self:
        return type(self)(self.left * np.float32(factor), self.right)

    def arrays(self) -> Arrays:
        return {"left": self.left, "right": self.right}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        return cls(arrays["left"].astype(np.float32, copy=False), arrays["right"].astype(np.float32, copy=False))


class SparseFactors(Kernel):
    """K = left @ right.T, both CSR of float32 [size, d], for many factors of which each item has few."""

    form = "sparse-factors"

    def __init__(self, left: sp.csr_array, right: sp.csr_array) -> None:
        self.left, self.right = left, right

    @property
    def size(self) -> int:
        return self.left.shape[0]

    def propagate(self, profiles: sp.csr_array) -> FloatMatrix:
        users = (profiles @ self.left).T.toarray()  # [d, batch], so that the rows of `right` are read once per batch
        return np.ascontiguousarray((self.right @ users).T)

    def add_products(self, items: Positions, weights: Weights, offsets: Offsets, scores: FloatMatrix) -> None:
        users = np.zeros((self.left.shape[1], len(scores)), dtype=np.float32)
        for row, (start, end) in enumerate(pairwise(offsets.tolist())):
            if start < end:
                users[:, row] = _combined(self.left, items[start:end], weights[start:end])
        scores += (self.right @ users).T

    def pairs(self, items: Positions, offsets: Offsets, lists: Positions) -> FloatMatrix:
        found = np.empty((len(items), lists.shape[1]), dtype=np.float32)
        left = self.left[items]
        for row, (start, end) in enumerate(pairwise(offsets.tolist())):
            found[start:end] = (left[start:end] @ self.right[lists[row]].T).toarray()
        return found

    def scaled(self, factor: float) -> Self:
        return type(self)(sp.csr_array(self.left * np.float32(factor)), self.right)

    def arrays(self) -> Arrays:
        return {
            "width": np.array([self.left.shape[1]]),
            **{
                f"{side}_{name}": getattr(matrix, name)
                for side, matrix in (("left", self.left), ("right", self.right))
                for name in ("data", "indices", "indptr")
            },
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        shape = (len(arrays["left_indptr"]) - 1, int(arrays["width"][0]))
        left, right = (
            sp.csr_array(tuple(arrays[f"{side}_{name}"] for name in ("data", "indices", "indptr")), shape=shape)
            for side in ("left", "right")
        )
        return cls(left, right)


def _by_row(matrix: FloatMatrix) -> FloatMatrix:
    """The matrix with the numbers of a row side by side in memory.

    A query takes few rows, and `numpy.take` first copies a matrix whose columns lie one after the other, as the
    inverse of LAPACK has them. That took most of the time of a query.
    """
    return np.ascontiguousarray(matrix)


def _combined(matrix: sp.csr_array, rows: Positions, weights: Weights) -> npt.NDArray[np.float64]:
    """The weighted sum of some rows, float64 [columns]. rows: [n]; weights: [n]."""
    entries, lengths = _entries(matrix, rows)
    values = matrix.data.take(entries)
    values *= np.repeat(weights, lengths)
    sums = np.bincount(matrix.indices.take(entries), values, matrix.shape[1])
    return np.asarray(sums, dtype=np.float64)


def _entries(matrix: sp.csr_array, rows: Positions) -> tuple[Offsets, Offsets]:
    """The indices of the stored entries of some rows, row by row, and how many each row has. rows: [n]."""
    starts = matrix.indptr[rows]
    lengths = matrix.indptr[rows + 1] - starts
    ends = np.cumsum(lengths)
    entries = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)
    return entries, lengths


_CELLS = 16_000_000
FORMS: dict[str, type[Kernel]] = {kernel.form: kernel for kernel in (Dense, Sparse, Factors, SparseFactors)}


def strongest(weights: FloatMatrix, per_row: int) -> sp.csr_array:
    """The `per_row` entries of largest magnitude in each row of float32 [n, m], as CSR; the rest become zero."""
    n, m = weights.shape
    if per_row >= m:
        return sp.csr_array(weights)
    columns = np.empty((n, per_row), dtype=np.int32)
    slices = max(1, _CELLS // m)
    for start in range(0, n, slices):  # sorting everything at once would take twice the memory of the weights
        rows = slice(start, start + slices)
        columns[rows] = np.argpartition(-np.abs(weights[rows]), per_row - 1, axis=1)[:, :per_row]
    columns.sort(axis=1)
    values = np.take_along_axis(weights, columns, axis=1)
    kept = sp.csr_array((values.ravel(), columns.ravel(), np.arange(n + 1) * per_row), shape=(n, m))
    kept.eliminate_zeros()
    return kept
