"""What models train on: the events and the item table of one feature snapshot, by position."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store.online import Histories, build_histories


@dataclass(frozen=True)
class Interactions:
    """Events as columns of equal length, sorted by (user, timestamp, item)."""

    users: npt.NDArray[np.int32]  # [n]
    items: npt.NDArray[np.int32]  # [n]
    types: npt.NDArray[np.int8]  # [n]
    weights: npt.NDArray[np.float32]  # [n]
    timestamps: npt.NDArray[np.int64]  # [n] microseconds since the epoch

    def __len__(self) -> int:
        return len(self.users)

    def where(self, mask: npt.NDArray[np.bool_]) -> "Interactions":
        return Interactions(
            self.users[mask], self.items[mask], self.types[mask], self.weights[mask], self.timestamps[mask]
        )


@dataclass(frozen=True)
class ItemTable:
    """The catalogue by position: row i describes item position i."""

    ids: npt.NDArray[np.object_]  # [n_items] str
    metadata: list[dict[str, Any]]  # [n_items]
    active: npt.NDArray[np.bool_]  # [n_items]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Dataset:
    """Events of `n_users` users with the items of one catalogue. Users are positions; no id of a person is here."""

    interactions: Interactions
    items: ItemTable
    n_users: int
    snapshot_id: str = ""
    max_events: int = field(default=200)

    @property
    def n_items(self) -> int:
        return len(self.items)

    def histories(self, users: npt.NDArray[np.int32] | None = None) -> Histories:
        """The histories of these users (default: all, in order), bounded by `max_events`.

        users: int32 [batch], distinct positions.
        """
        events = self.interactions
        if users is None:
            rows, n_rows = events.users.astype(np.int64), self.n_users
        else:
            row_of = np.full(self.n_users, -1, dtype=np.int64)
            row_of[users] = np.arange(len(users))
            rows, n_rows = row_of[events.users], len(users)
            events = events.where(rows >= 0)
            rows = rows[rows >= 0]
        return build_histories(
            rows, events.items, events.types, events.weights, events.timestamps, n_rows, self.max_events
        )

    @cached_property
    def seen(self) -> sp.csr_array:
        """bool [n_users, n_items]: every item a user interacted with, without the bound on histories."""
        events = self.interactions
        matrix = sp.coo_array(
            (np.ones(len(events), dtype=bool), (events.users, events.items)), shape=(self.n_users, self.n_items)
        ).tocsr()
        matrix.sum_duplicates()
        return matrix
