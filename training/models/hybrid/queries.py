"""What a ranker learns from: moments of the newest window, with what users had done and what they chose next."""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store.online import Histories
from training.data.dataset import Dataset
from training.data.splits import Holdout


def ask(
    dataset: Dataset, since: int, per_user: int, max_questions: int, mask_seen: bool, rng: np.random.Generator
) -> Holdout:
    """Questions about the events at or after `since`, at up to `per_user` evenly spaced events of each user.

    A question about the event at place p of a user's window has all earlier events as its history and the distinct
    items from p on as targets, so that one user stands behind several questions.

    Args:
        dataset: events sorted by user and time.
        since: microseconds; earlier events only appear in histories.
        per_user: moments of one user at most.
        max_questions: users are drawn until about so many questions are asked.
        mask_seen: whether items of the whole past are left out of ranking and targets.
        rng: draws the users.
    """
    events = dataset.interactions
    late = np.flatnonzero(events.timestamps >= since)
    users = np.unique(events.users[late])
    if len(users) * per_user > max_questions:
        users = np.sort(rng.choice(users, max(1, max_questions // per_user), replace=False))
    starts = np.searchsorted(events.users, users)
    ends = np.searchsorted(events.users, users, side="right")
    asked: list[int] = []
    pasts: list[npt.NDArray[np.int64]] = []
    targets: list[npt.NDArray[np.int32]] = []
    masked: list[npt.NDArray[np.int32]] = []
    for user, start, end in zip(users, starts, ends, strict=True):
        first = start + np.searchsorted(events.timestamps[start:end], since)
        moments = first + np.unique(np.arange(per_user) * (end - first) // per_user)
        for moment in moments:
            seen = np.unique(events.items[start:moment]) if mask_seen else np.empty(0, np.int32)
            chosen = np.setdiff1d(events.items[moment:end], seen)
            if len(chosen):
                asked.append(int(user))
                pasts.append(np.arange(max(start, moment - dataset.max_events), moment))
                targets.append(chosen)
                masked.append(seen)
    past = np.concatenate(pasts) if pasts else np.empty(0, np.int64)
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in pasts]))).astype(np.int64)
    histories = Histories(
        events.items[past], events.types[past], events.weights[past], events.timestamps[past], offsets
    )
    return Holdout(
        np.array(asked, np.int32), histories, _mask(targets, dataset.n_items), _mask(masked, dataset.n_items)
    )


def _mask(rows: list[npt.NDArray[np.int32]], n_items: int) -> sp.csr_array:
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    columns = np.concatenate(rows) if rows else np.empty(0, np.int32)
    return sp.csr_array((np.ones(len(columns), bool), columns, offsets), shape=(len(rows), n_items))
