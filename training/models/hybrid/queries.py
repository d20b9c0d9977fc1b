"""The ranker's training queries: the history of a user at a time of the newest window, and the later choices."""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store.interaction_types import SeenPolicy, makes_seen
from feature_store.online import Histories
from training.data.dataset import Dataset
from training.data.splits import Holdout
from training.models.hybrid.config import HybridConfig
from training.models.hybrid.sampling import window_start


def split_queries(
    dataset: Dataset, known_until: int | None, config: HybridConfig, rng: np.random.Generator
) -> tuple[Dataset, Holdout]:
    """The events that the base models know, and queries about the events after them.

    Args:
        dataset: all events.
        known_until: microseconds; None: the start of the configured window.
        config: of the hybrid.
        rng: draws the users.

    Raises:
        ValueError: there are no events before that time, or none after it.
    """
    times = dataset.interactions.timestamps
    since = window_start(dataset, config.window) if known_until is None else known_until
    past = dataset.where(times < since)
    if not len(past.interactions) or len(past.interactions) == len(times):
        raise ValueError("hybrid needs events before and after the time until which its base models know them")
    given: dict[bool | None, SeenPolicy] = {None: dataset.ranking_mask, True: "all", False: "none"}
    mask = given[config.mask_seen]
    return past, build_queries(dataset, since, config.queries_per_user, config.max_queries, mask, rng)


def build_queries(
    dataset: Dataset, since: int, per_user: int, max_queries: int, mask: SeenPolicy, rng: np.random.Generator
) -> Holdout:
    """Queries at up to `per_user` evenly spaced events of each user at or after `since`.

    The query at event p of a user has all earlier events as its history and the distinct items from p on as targets, so
    one user can give several queries.

    Args:
        dataset: events sorted by user and time.
        since: microseconds; earlier events only appear in histories.
        per_user: largest number of queries of one user.
        max_queries: users are drawn so that about this many queries result.
        mask: which items of the whole earlier history are left out of ranking and targets.
        rng: draws the users.
    """
    events = dataset.interactions
    late = np.flatnonzero(events.timestamps >= since)
    users = np.unique(events.users[late])
    if len(users) * per_user > max_queries:
        users = np.sort(rng.choice(users, max(1, max_queries // per_user), replace=False))
    makes_item_seen = makes_seen(events.types, mask)
    starts = np.searchsorted(events.users, users)
    ends = np.searchsorted(events.users, users, side="right")
    query_users: list[int] = []
    pasts: list[npt.NDArray[np.int64]] = []
    targets: list[npt.NDArray[np.int32]] = []
    masked: list[npt.NDArray[np.int32]] = []
    for user, start, end in zip(users, starts, ends, strict=True):
        first = start + np.searchsorted(events.timestamps[start:end], since)
        places = first + np.unique(np.arange(per_user) * (end - first) // per_user)
        for place in places:
            seen = np.unique(events.items[start:place][makes_item_seen[start:place]])
            chosen = np.setdiff1d(events.items[place:end], seen)
            if len(chosen):
                query_users.append(int(user))
                pasts.append(np.arange(max(start, place - dataset.max_events), place))
                targets.append(chosen)
                masked.append(seen)
    past = np.concatenate(pasts) if pasts else np.empty(0, np.int64)
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in pasts]))).astype(np.int64)
    histories = Histories(
        events.items[past], events.types[past], events.weights[past], events.timestamps[past], offsets
    )
    return Holdout(
        np.array(query_users, np.int32), histories, _mask(targets, dataset.n_items), _mask(masked, dataset.n_items)
    )


def _mask(rows: list[npt.NDArray[np.int32]], n_items: int) -> sp.csr_array:
    """bool [len(rows), n_items], True at the items of each row."""
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    columns = np.concatenate(rows) if rows else np.empty(0, np.int32)
    return sp.csr_array((np.ones(len(columns), bool), columns, offsets), shape=(len(rows), n_items))
