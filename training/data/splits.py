"""How a data set is cut into what a model learns from and what it is asked for. Every cut respects time."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store.interaction_types import SeenPolicy, makes_seen
from feature_store.online import Histories
from training.data.dataset import Dataset, Interactions

_MASK_WORDS = {
    "none": "no item is masked",
    "bought": "items the user bought before are masked and no targets",
    "all": "items the user interacted with before are masked and no targets",
}


@dataclass(frozen=True)
class Holdout:
    """Questions with known answers: what users had done up to some moment, and what they chose after it."""

    users: npt.NDArray[np.int32]  # [n] positions
    histories: Histories  # of n users, bounded by the data set's max_events
    targets: sp.csr_array  # bool [n, n_items], at least one a row
    masked: sp.csr_array  # bool [n, n_items] items that must not be ranked; disjoint from the targets

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: npt.NDArray[np.int64]) -> "Holdout":
        """The questions at these rows, in this order."""
        return Holdout(self.users[rows], self.histories.take(rows), self.targets[rows], self.masked[rows])

    def sample(self, n: int, seed: int) -> "Holdout":
        """At most n of the questions, drawn with the seed and kept in order."""
        if len(self) <= n:
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), n, replace=False)))


@dataclass(frozen=True)
class Split:
    """One cut of a data set: tune on `train` and `validation`, fit on `before_test`, judge on `test`."""

    protocol: str  # in words, stored beside every metric
    train: Dataset  # events before the validation window
    validation: Holdout  # its histories lie in `train`
    before_test: Dataset  # events before the test window, those of the validation window included
    test: Holdout  # its histories lie in `before_test`
    known_until: int | None  # microseconds; `train` holds exactly the events before it; None: no such moment
    mask: SeenPolicy  # which earlier items the questions leave out
    hash: str  # equal hashes: same earlier events, same questions, same answers, same masks


def temporal_split(
    dataset: Dataset, mask: SeenPolicy = "all", validation: float = 0.1, test: float = 0.1, max_users: int = 20_000
) -> Split:
    """Cut all users at two moments, so that nothing known after a moment helps to predict it.

    Args:
        dataset: events of a whole snapshot.
        mask: which earlier items are left out of the ranking.
        validation, test: shares of the events in the two windows.
        max_users: at most so many questions a window, drawn with a fixed seed.

    Raises:
        ValueError: too few events, or too many at one moment, to put any before the windows and after them.
    """
    times = np.sort(dataset.interactions.timestamps)
    n = len(times)
    if n < 3:
        raise ValueError(f"a temporal split needs at least 3 events, there are {n}")
    first, second = times[int(n * (1 - validation - test))], times[int(n * (1 - test))]
    if times[0] == first or first == second:
        raise ValueError("a temporal split needs events at different times; most share one moment")
    moments = dataset.interactions.timestamps
    train, before_test = dataset.where(moments < first), dataset.where(moments < second)
    window = dataset.interactions.where((moments >= first) & (moments < second))
    validation_questions = _questions(train, window, mask).sample(max_users, seed=0)
    test_questions = _questions(before_test, dataset.interactions.where(moments >= second), mask)
    test_questions = test_questions.sample(max_users, seed=0)
    protocol = (
        f"temporal: global cuts at {_moment(first)} and {_moment(second)}, the oldest "
        f"{1 - validation - test:.0%} of events train, the next {validation:.0%} validate, the last {test:.0%} test; "
        f"a query is the user's newest {dataset.max_events} events before the window, empty for a cold user; targets "
        f"are the distinct items of the window; {_MASK_WORDS[mask]}; full ranking of {dataset.n_items} items"
    )
    return _split(protocol, train, validation_questions, before_test, test_questions, int(first), mask)


def leave_one_out_split(dataset: Dataset, mask: SeenPolicy = "all", max_users: int = 20_000) -> Split:
    """Hold out every user's last event for test and the one before it for validation.

    Users with fewer than three events only train. Events of one moment are ordered at random with a fixed seed:
    any order by position or id would let a model learn the order itself.
    """
    events = dataset.interactions
    shuffle = np.random.default_rng(0).permutation(len(events))
    order = np.lexsort((shuffle, events.timestamps, events.users))
    counts = np.bincount(events.users, minlength=dataset.n_users)
    from_end = np.empty(len(events), dtype=np.int64)  # 1: the user's last event
    from_end[order] = np.cumsum(counts)[events.users[order]] - np.arange(len(events))
    held_out = counts[events.users] >= 3
    parts: list[tuple[Dataset, Holdout]] = []
    for place in (2, 1):
        past = dataset.where(~held_out | (from_end > place))
        chosen = events.where(held_out & (from_end == place))
        parts.append((past, _questions(past, chosen, mask).sample(max_users, seed=0)))
    protocol = (
        f"leave-one-out: each user's last event tests, the one before it validates, the rest train (events of one "
        f"moment in seeded random order); a query is the newest {dataset.max_events} events before the target; "
        f"{_MASK_WORDS[mask]}; full ranking of {dataset.n_items} items"
    )
    return _split(protocol, *parts[0], *parts[1], None, mask)


def _questions(past: Dataset, chosen: Interactions, mask: SeenPolicy) -> Holdout:
    masked = _masked_items(past, mask)
    targets = replace(past, interactions=chosen).seen
    targets = (targets.astype(np.int8) - targets.multiply(masked).astype(np.int8)).astype(bool)
    targets.eliminate_zeros()
    users = np.flatnonzero(np.diff(targets.indptr)).astype(np.int32)
    return Holdout(users, past.histories(users), targets[users], masked[users])


def _masked_items(past: Dataset, mask: SeenPolicy) -> sp.csr_array:
    seen = makes_seen(past.interactions.types, mask)
    return past.seen if seen.all() else past.where(seen).seen


def _split(
    protocol: str,
    train: Dataset,
    validation: Holdout,
    before_test: Dataset,
    test: Holdout,
    known_until: int | None,
    mask: SeenPolicy,
) -> Split:
    digest = hashlib.blake2b(protocol.encode(), digest_size=8)
    events = before_test.interactions
    columns = [events.users, events.items, events.types, events.weights, events.timestamps]
    for holdout in (validation, test):
        columns += [holdout.users, holdout.histories.items, holdout.histories.offsets]
        for matrix in (holdout.targets, holdout.masked):
            matrix.sort_indices()
            columns += [matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)]
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return Split(protocol, train, validation, before_test, test, known_until, mask, digest.hexdigest())


def _moment(micros: int) -> str:
    return f"{np.datetime64(int(micros), 'us').astype('datetime64[s]')}Z"
