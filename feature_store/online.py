"""The online view of a user: one definition of a history for training and for requests.

A history is the newest `max_events` events of a user, oldest first. Training builds histories from a snapshot's
columns, serving from the events a request carries; both go through `build_histories`.

Events of one time are ordered by item id, and those of one item by the id of the interaction, wherever events are
read: which of them a bounded history holds, and their order in it, must not differ between training and requests.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from configs.history import HistorySettings
from feature_store.interaction_types import SEEN_TYPES, TYPE_WEIGHTS

OLDEST_FIRST_SQL = 'occurred_at, item_id COLLATE "C", id'
NEWEST_FIRST_SQL = 'occurred_at DESC, item_id COLLATE "C" DESC, id DESC'
"""The order of a user's events, over the table `interactions`."""
ALL_INTERACTIONS = "all_interactions"
"""The view of all interactions: those in the table `interactions` and those in the archive."""
FORMAT = 2
"""Raise it where other bytes are built from the same interactions. Histories of another format are built anew."""


def newest_events_sql(tenant: str, user: str, limit: str, condition: str = "true") -> str:
    """SQL whose rows contain the newest `limit` events of a user, unordered; the caller orders and limits them again.

    The view ALL_INTERACTIONS has the same rows, but PostgreSQL would read all events of the user from it. The columns
    are id, item_id, interaction_type, value and occurred_at.

    Args:
        tenant, user, limit: SQL expressions.
        condition: a further condition on each row.
    """
    columns = "id, item_id, interaction_type, value, occurred_at"
    of_user = f"tenant_id = {tenant} AND user_id = {user} AND {condition}"
    return (
        f"(SELECT {columns} FROM interactions WHERE {of_user} ORDER BY {NEWEST_FIRST_SQL} LIMIT {limit}) "  # noqa: S608
        f"UNION ALL (SELECT {columns} FROM archived_events WHERE {of_user})"
    )


def form_of(settings: HistorySettings) -> int:
    """A number for everything beside the interactions that the bytes of a built history depend on."""
    facts = (FORMAT, settings.max_events, settings.max_seen, settings.max_scanned, TYPE_WEIGHTS, SEEN_TYPES)
    return zlib.crc32(repr(facts).encode()) & 0x7FFFFFFF  # as a PostgreSQL integer


@dataclass(frozen=True, eq=False)
class Histories:
    """A ragged batch of histories. Row b is the slice offsets[b]:offsets[b + 1], oldest event first.

    Do not write to its arrays: what is derived from them is cached.
    """

    items: npt.NDArray[np.int32]  # [n_events] item positions
    types: npt.NDArray[np.int8]  # [n_events] codes of columns.INTERACTION_TYPES
    weights: npt.NDArray[np.float32]  # [n_events] in [0, 1]
    timestamps: npt.NDArray[np.int64]  # [n_events] microseconds since the epoch, UTC
    offsets: npt.NDArray[np.int64]  # [batch + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of events of each history, [batch]."""
        return np.diff(self.offsets)

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """The batch row of every event, [n_events]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, rows: npt.NDArray[np.int64]) -> "Histories":
        """The histories of these batch rows, in this order; a row may be taken more than once. rows: int64 [m].

        Raises IndexError for a row outside the batch.
        """
        lengths = self.lengths[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return self._with(events, offsets)

    def without_items(self, items: npt.NDArray[np.integer]) -> "Histories":
        """Each history without any event of its row's item: what leave-one-out explanations score. items: [batch]."""
        kept = self.items != items[self.rows]
        offsets = np.concatenate(([0], np.cumsum(kept)))[self.offsets]
        return self._with(np.flatnonzero(kept), offsets)

    def _with(self, events: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> "Histories":
        return Histories(self.items[events], self.types[events], self.weights[events], self.timestamps[events], offsets)


def build_histories(
    rows: npt.NDArray[np.int64],
    items: npt.NDArray[np.int32],
    types: npt.NDArray[np.int8],
    weights: npt.NDArray[np.float32],
    timestamps: npt.NDArray[np.int64],
    n_rows: int,
    max_events: int,
) -> Histories:
    """Group events by row, order them by time and keep the newest `max_events` of each row.

    Args:
        rows: int64 [n], the batch row of each event, in [0, n_rows).
        items, types, weights, timestamps: [n] columns of the events; ties in time keep the order given.
        n_rows: number of histories; a row without events is an empty history.
        max_events: bound on the length of a history.
    """
    order = np.lexsort((timestamps, rows))  # stable: equal times keep their order
    rows = rows[order]
    counts = np.bincount(rows, minlength=n_rows)
    ends = np.cumsum(counts)
    from_end = ends[rows] - np.arange(len(rows))  # 1 for the newest event of its row
    kept = order[from_end <= max_events]
    offsets = np.concatenate(([0], np.cumsum(np.minimum(counts, max_events)))).astype(np.int64)
    return Histories(items[kept], types[kept], weights[kept], timestamps[kept], offsets)
