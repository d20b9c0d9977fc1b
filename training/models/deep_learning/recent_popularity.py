"""Recent popularity of each item, at times of the past and now.

New and fading items change faster than a network's weights. So at every place of a training sequence the softmax adds
the item's popularity at that time to its logit, times a weight that depends on the user's state. Serving uses the
popularity of now. Only events before a time count towards its popularity.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store import columns as c
from training.data.dataset import Interactions
from training.models.contract import FloatMatrix

N_TIMES = 128
"""Times at which popularity is stored, with equally many events between them."""


@dataclass(frozen=True)
class RecentPopularity:
    """Popularity of items at m times, on a log scale, once for each of k half-lives."""

    times: npt.NDArray[np.int64]  # [m] microseconds, ascending
    values: npt.NDArray[np.float32]  # [m, k, n_items], of the events before each time
    latest: FloatMatrix  # [n_items, k], of all events

    def at(self, timestamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The index of the last stored time at or before each timestamp, of the same shape; 0 before all of them."""
        return np.maximum(np.searchsorted(self.times, timestamps, side="right") - 1, 0)


def recent_popularity(events: Interactions, n_items: int, half_lives: tuple[float, ...]) -> RecentPopularity:
    """log(1 + decayed sum of event weights) per item, divided by its standard deviation over the items.

    All values are zero where the events span less than a day: then there is nothing to follow, or the timestamps are
    positions in a sequence rather than times.

    Args:
        events: at least one.
        n_items: size of the catalogue.
        half_lives: k half-lives in days.
    """
    if not half_lives or np.ptp(events.timestamps) < c.MICROS_PER_DAY:
        k = len(half_lives)
        nothing = np.zeros((1, k, n_items), np.float32)
        return RecentPopularity(np.zeros(1, np.int64), nothing, np.zeros((n_items, k), np.float32))
    n = len(events)
    places = np.unique(np.linspace(0, n - 1, N_TIMES).astype(np.int64))
    times = np.unique(np.partition(events.timestamps, places)[places])
    newest = events.timestamps.max()
    # Events are sorted period by period, because a stable sort of all of them takes several copies.
    period_of = np.searchsorted(times, events.timestamps, side="right").astype(np.uint8) - 1
    by_period = np.argsort(period_of, kind="stable")
    bounds = np.concatenate(([0], np.cumsum(np.bincount(period_of, minlength=len(times)))))
    decay = np.log(2) / (np.array(half_lives) * c.MICROS_PER_DAY)  # [k] per microsecond
    ends = np.append(times[1:], newest)
    state = np.zeros((len(half_lives), n_items))
    found = np.empty((len(times), len(half_lives), n_items), dtype=np.float32)
    for index, time in enumerate(times):
        found[index] = state
        part = by_period[bounds[index] : bounds[index + 1]]
        part = part[np.argsort(events.timestamps[part], kind="stable")]
        timestamps, items, weights = events.timestamps[part], events.items[part], events.weights[part]
        for k, rate in enumerate(decay):
            decayed = weights * np.exp(-rate * (ends[index] - timestamps))
            state[k] = state[k] * np.exp(-rate * (ends[index] - time)) + np.bincount(items, decayed, n_items)
    spread = np.log1p(state).std(axis=1)[:, None]
    spread = np.where(spread > 1e-6, spread, 1.0).astype(np.float32)  # 1 where all items are equally popular
    latest = np.log1p(state).T.astype(np.float32) / spread.T
    np.log1p(found, out=found)
    found /= spread
    return RecentPopularity(times, found, latest)
