"""How much each item was chosen of late, at any moment of the past and now.

What is new and what is fading moves faster than a network's weights. So the network is told: at every place of a
sequence the softmax adds to each item's logit how popular it was at that moment, times a weight that depends on the
user's state. When it serves, that moment is now. Only events before a moment count towards it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store import columns as c
from training.data.dataset import Interactions
from training.models.contract import FloatMatrix

N_MOMENTS = 128
"""Moments kept, at equal counts of events between them."""


@dataclass(frozen=True)
class Trends:
    """Popularity of items at a row of moments, on a log scale, over one window of memory per half-life."""

    moments: npt.NDArray[np.int64]  # [m] microseconds, ascending
    values: npt.NDArray[np.float32]  # [m, k, n_items], from the events before each moment
    latest: FloatMatrix  # [n_items, k], from all events

    def at(self, timestamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The index of the last moment at or before each time, of the same shape; 0 before all of them."""
        return np.maximum(np.searchsorted(self.moments, timestamps, side="right") - 1, 0)


def trends(events: Interactions, n_items: int, half_lives: tuple[float, ...]) -> Trends:
    """Decayed counts of events, as log(1 + count) in units of their spread; zeros where all fall into one day.

    Then there is nothing to follow, or the times are positions and no clock.

    Args:
        events: at least one.
        n_items: size of the catalogue.
        half_lives: days after which an event counts half, k of them.
    """
    if not half_lives or np.ptp(events.timestamps) < c.MICROS_PER_DAY:
        k = len(half_lives)
        return Trends(np.zeros(1, np.int64), np.zeros((1, k, n_items), np.float32), np.zeros((n_items, k), np.float32))
    order = np.argsort(events.timestamps, kind="stable")
    times, items, weights = events.timestamps[order], events.items[order], events.weights[order]
    moments = np.unique(times[np.linspace(0, len(times) - 1, N_MOMENTS).astype(np.int64)])
    bounds = np.append(np.searchsorted(times, moments, side="left"), len(times))
    decay = np.log(2) / (np.array(half_lives) * c.MICROS_PER_DAY)  # [k] per microsecond
    ends = np.append(moments[1:], times[-1])
    state = np.zeros((len(half_lives), n_items))
    found = np.empty((len(moments), len(half_lives), n_items), dtype=np.float32)
    for index, moment in enumerate(moments):
        found[index] = state
        part = slice(bounds[index], bounds[index + 1])
        for k, rate in enumerate(decay):
            faded = weights[part] * np.exp(-rate * (ends[index] - times[part]))
            state[k] = state[k] * np.exp(-rate * (ends[index] - moment)) + np.bincount(items[part], faded, n_items)
    spread = np.log1p(state).std(axis=1)[:, None]
    spread = np.where(spread > 1e-6, spread, 1.0).astype(np.float32)  # one item alone, or all alike: none
    return Trends(moments, np.log1p(found) / spread, np.log1p(state).T.astype(np.float32) / spread.T)
