"""The sizes of a data set that decide the cost of a fit, and the form in which each family declares that cost.

A family counts the operations of its fit and multiplies each kind by the time that it takes on one core of the
reference processor (AMD EPYC 9004, AVX-512). `training.forecast` measures how fast this machine is compared with it.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from training.data.dataset import Dataset

MS, NS, MB = 1e-3, 1e-9, 2**20

# Seconds on the reference processor of one operation of each kind, measured with NumPy and SciPy on one core.
PRODUCT = 0.02 * NS
"""A multiply-add of dense float32 matrices; twice as much in float64."""
SPARSE_DENSE = 0.13 * NS
"""A multiply-add of a sparse matrix with a dense one."""
SPARSE_SPARSE = 8 * NS
"""A multiply-add of two sparse matrices."""
PASS = 1 * NS
"""An entry of an array that is larger than the cache and is read and written once."""
LOOKUP = 20 * NS
"""An entry that is sorted, counted or looked up."""
PYTHON = 1_000 * NS
"""A step of the interpreter that handles one value, such as one entry of an item's metadata."""


@dataclass(frozen=True)
class DataSizes:
    """The sizes of a data set that the formulas of the families read."""

    events: int
    users: int  # with an event
    items: int  # of the catalogue
    history_events: int  # events that histories hold, at most `Dataset.max_events` of each user
    pairs: int  # distinct items of each history, summed over users
    co_pairs: int  # ordered pairs of distinct items of one history, summed over users
    all_pairs: int  # like `pairs`, of all events of a user, without the bound on histories
    all_co_pairs: int  # like `co_pairs`, of all events of a user
    earlier_events: float  # events of the same user before an event, on average
    metadata_values: int  # entries of all items' metadata together
    validation_users: int = 0  # users with a query in the validation window

    @property
    def history_length(self) -> float:
        """Events of a history, on average."""
        return self.history_events / max(1, self.users)

    @classmethod
    def of(cls, dataset: Dataset, validation_users: int = 0) -> Self:
        """Count a data set, which may be empty."""
        events, history_events, pairs, co_pairs = dataset.interactions, 0, 0, 0
        for _, histories in dataset.histories_in_parts():
            distinct = np.unique(histories.rows * dataset.n_items + histories.items) // max(1, dataset.n_items)
            in_history = np.bincount(distinct, minlength=len(histories)).astype(np.int64)
            history_events += len(histories.items)
            pairs, co_pairs = pairs + int(in_history.sum()), co_pairs + int((in_history**2).sum())
        ever = np.diff(dataset.seen.indptr).astype(np.float64)
        counts = np.bincount(events.users).astype(np.float64)
        return cls(
            events=len(events),
            users=int((counts > 0).sum()),
            items=dataset.n_items,
            history_events=history_events,
            pairs=pairs,
            co_pairs=co_pairs,
            all_pairs=int(ever.sum()),
            all_co_pairs=int((ever**2).sum()),
            earlier_events=float(counts @ (counts - 1)) / max(1, 2 * len(events)),
            metadata_values=dataset.items.metadata_values,
            validation_users=validation_users,
        )


@dataclass(frozen=True)
class Workload:
    """What one fit does."""

    parameters: int  # numbers that the model learns
    seconds: float  # of one core of the reference processor
    peak_bytes: float = 0.0  # of the arrays that are held at once
    scoring_seconds: float = 0.0  # to score one history, as an ensemble does with its base models
    stops_in_time: bool = False  # whether the fit ends at `RuntimeOptions.max_seconds`

    def __add__(self, other: "Workload") -> "Workload":
        """One after the other: the memory of the first is free again when the second begins."""
        return Workload(
            self.parameters + other.parameters,
            self.seconds + other.seconds,
            max(self.peak_bytes, other.peak_bytes),
            self.scoring_seconds + other.scoring_seconds,
            self.stops_in_time or other.stops_in_time,
        )


def item_vectors_workload(sizes: DataSizes, dimensions: int) -> Workload:
    """The cost of `coconsumption.item_vectors`: a randomised SVD with seven power iterations, each of two products."""
    rank = min(dimensions, sizes.users, sizes.items)
    svd = svd_workload(sizes.users, sizes.items, sizes.pairs, rank)
    scaled = 8.0 * sizes.pairs  # a copy of the matrix
    return Workload(sizes.items * rank, svd.seconds, svd.peak_bytes + scaled)


def svd_workload(rows: int, columns: int, entries: float, rank: int) -> Workload:
    """The cost of scikit-learn's `randomized_svd` of a sparse matrix."""
    width, products = rank + 10, 16
    seconds = products * (entries * width * SPARSE_DENSE + 2 * (rows + columns) * width**2 * PRODUCT)
    return Workload(0, seconds, peak_bytes=24.0 * width * (rows + columns))
