"""Samples of users, on whom a hybrid measures its scales and sizes its cold-item boost."""

import numpy as np
import numpy.typing as npt

from training.data.dataset import Dataset


def window_start(dataset: Dataset, share: float) -> int:
    """The time at which the newest `share` of the events begins, in microseconds."""
    return int(np.quantile(dataset.interactions.timestamps, 1 - share, method="higher"))


def sample_users(dataset: Dataset, max_users: int, since: int | None = None) -> npt.NDArray[np.int32]:
    """Distinct users with an event, ascending, `max_users` at most.

    since: microseconds; only users with an event at or after it, since those are the likeliest to come back.
    """
    events = dataset.interactions
    users = np.unique(events.users if since is None else events.users[events.timestamps >= since])
    if len(users) > max_users:
        users = np.sort(np.random.default_rng(0).choice(users, max_users, replace=False))
    return users
