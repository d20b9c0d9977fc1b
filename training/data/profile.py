"""What a data set is like in a few numbers, from which families derive their default hyper-parameters."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from feature_store import columns as c
from training.data.dataset import Dataset


@dataclass(frozen=True)
class DataProfile:
    """Sizes and habits of a data set. All figures of an empty data set are 0."""

    n_users: int  # with an event
    n_items: int  # of the catalogue
    n_events: int
    events_per_user: float  # mean over the users with an event
    median_events_per_user: float
    events_per_item: float  # mean over the items with an event
    repeat_share: float  # of the events, those whose user had the item before
    simultaneous_share: float  # of the events after a user's first, those at the moment of the user's event before it
    cold_item_share: float  # of the catalogue, the items without an event
    span_days: float  # from the oldest event to the newest; 0 where timestamps are positions, which are no times
    has_metadata: bool  # whether any item has metadata

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Count a data set, which may be empty.

        A data set whose times all lie within one day counts as having positions for timestamps.
        """
        events, n_items = dataset.interactions, dataset.n_items
        per_user = np.bincount(events.users, minlength=1)
        per_user = per_user[per_user > 0]
        used_items = int(np.count_nonzero(np.bincount(events.items, minlength=n_items)))
        span = int(np.ptp(events.timestamps)) if len(events) else 0
        follows = events.users[1:] == events.users[:-1]
        together = follows & (events.timestamps[1:] == events.timestamps[:-1])
        return cls(
            n_users=len(per_user),
            n_items=n_items,
            n_events=len(events),
            events_per_user=len(events) / max(1, len(per_user)),
            median_events_per_user=float(np.median(per_user)) if len(per_user) else 0.0,
            events_per_item=len(events) / max(1, used_items),
            repeat_share=dataset.repeat_share if len(events) else 0.0,
            simultaneous_share=float(together.sum() / max(1, follows.sum())),
            cold_item_share=1 - used_items / n_items if n_items else 0.0,
            span_days=span / c.MICROS_PER_DAY if span >= c.MICROS_PER_DAY else 0.0,
            has_metadata=any(dataset.items.metadata),
        )


def preferred_number(value: float, low: float, high: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten, in ratio, within [low, high].

    Hyper-parameters that are functions of the data are rounded, so that a few new events do not change them: a model
    with other hyper-parameters is another one, which is compared with the champion by fitting both.

    Args:
        value: positive.
        low, high: bounds of the result, positive.
    """
    value = min(max(value, low), high)
    scale = 10.0 ** np.floor(np.log10(value))
    steps = np.array([1.0, 2.0, 5.0, 10.0]) * scale
    nearest = float(steps[np.argmin(np.abs(np.log(steps / value)))])
    return min(max(nearest, low), high)
