"""Splits of a data set into training events and hold-outs with queries. Every split respects time."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store.interaction_types import SeenPolicy, makes_seen
from feature_store.online import Histories
from training.data.dataset import Dataset, Interactions

MAX_EVALUATED_USERS = 20_000
"""The largest number of queries of a window, by default."""
_MASK_DESCRIPTIONS = {
    "none": "no item is masked",
    "bought": "items the user bought before are masked and no targets",
    "all": "items the user interacted with before are masked and no targets",
}


@dataclass(frozen=True)
class Holdout:
    """Queries with known targets: the history of a user up to some time, and the items they chose after it."""

    users: npt.NDArray[np.int32]  # [n] positions; a user may have several queries
    histories: Histories  # of n queries, bounded by the data set's max_events
    targets: sp.csr_array  # bool [n, n_items], at least one a row
    masked: sp.csr_array  # bool [n, n_items] items that must not be ranked; disjoint from the targets
    drawn_from: int | None = None  # number of queries of the whole window where these are a sample; None: they are all

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.users)

    def take(self, rows: npt.NDArray[np.int64]) -> "Holdout":
        """The queries at these rows, in this order."""
        return Holdout(self.users[rows], self.histories.take(rows), self.targets[rows], self.masked[rows])

    def batches(self, size: int) -> Iterator[npt.NDArray[np.int64]]:
        """The rows of all queries in order, at most `size` at a time, as `take` reads them."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))

    def sample(self, n: int, seed: int) -> "Holdout":
        """At most n of the queries, drawn with the seed and kept in order."""
        return self if len(self) <= n else self.take(_sampled_rows(len(self), n, seed))


@dataclass(frozen=True)
class Split:
    """One split of a data set: tune on `train` and `validation`, fit on `before_test`, judge on `test`."""

    protocol: str  # in words, stored beside every metric
    train: Dataset  # events before the validation window
    validation: Holdout  # its histories lie in `train`
    before_test: Dataset  # events before the test window, those of the validation window included
    test: Holdout  # its histories lie in `before_test`
    known_until: int | None  # microseconds; `train` holds exactly the events before it; None: no single time does
    mask: SeenPolicy  # which seen items the queries leave out
    hash: str  # equal hashes: same training events, queries, targets and masks


def temporal_split(
    dataset: Dataset,
    mask: SeenPolicy = "all",
    validation: float = 0.1,
    test: float = 0.1,
    max_users: int = MAX_EVALUATED_USERS,
) -> Split:
    """Cut the events of all users at two times, so that no model learns from events after the ones it predicts.

    Args:
        dataset: events of a whole snapshot.
        mask: which earlier items are left out of the ranking.
        validation, test: shares of the events in the two windows.
        max_users: the largest number of queries in a window; they are drawn with a fixed seed.

    Raises:
        ValueError: too few events, or too many with one timestamp, to have some before, between and after the cuts.
    """
    dataset = dataset.served_by(mask)
    times = np.sort(dataset.interactions.timestamps)
    n = len(times)
    if n < 3:
        raise ValueError(f"a temporal split needs at least 3 events, there are {n}")
    first, second = times[int(n * (1 - validation - test))], times[int(n * (1 - test))]
    if times[0] == first or first == second:
        raise ValueError("a temporal split needs events at different times; most share one timestamp")
    times_of_events = dataset.interactions.timestamps
    train, before_test = dataset.where(times_of_events < first), dataset.where(times_of_events < second)
    window = dataset.interactions.where((times_of_events >= first) & (times_of_events < second))
    validation_queries = _queries(train, window, mask, max_users)
    test_queries = _queries(before_test, dataset.interactions.where(times_of_events >= second), mask, max_users)
    protocol = (
        f"temporal: global cuts at {_iso_time(first)} and {_iso_time(second)}, the oldest "
        f"{1 - validation - test:.0%} of events train, the next {validation:.0%} validate, the last {test:.0%} test; "
        f"a query is the user's newest {dataset.max_events} events before the window, empty for a cold user; targets "
        f"are the distinct items of the window; {_MASK_DESCRIPTIONS[mask]}; full ranking of {dataset.n_items} items"
    )
    return _split(protocol, train, validation_queries, before_test, test_queries, int(first), mask)


def leave_one_out_split(dataset: Dataset, mask: SeenPolicy = "all", max_users: int = MAX_EVALUATED_USERS) -> Split:
    """Hold out every user's last event for test and the one before it for validation.

    Users with fewer than three events are only trained on. Events with equal timestamps are ordered at random with a
    fixed seed, because a model could learn an order by position or id.

    Args:
        dataset: events of a whole snapshot.
        mask: which earlier items are left out of the ranking.
        max_users: the largest number of queries of a hold-out; they are drawn with a fixed seed.
    """
    dataset = dataset.served_by(mask)
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
        parts.append((past, _queries(past, chosen, mask, max_users)))
    protocol = (
        f"leave-one-out: each user's last event tests, the one before it validates, the rest train (events of one "
        f"moment in seeded random order); a query is the newest {dataset.max_events} events before the target; "
        f"{_MASK_DESCRIPTIONS[mask]}; full ranking of {dataset.n_items} items"
    )
    return _split(protocol, *parts[0], *parts[1], None, mask)


def last_moments(dataset: Dataset, mask: SeenPolicy, n_users: int, seed: int) -> tuple[Dataset, Holdout]:
    """Hold out the last moment of a sample of users, to choose between models within a fit.

    A moment is all events of a user with one timestamp, such as a basket: a part of it would give the rest away. At
    most half of a user's events are held out, so that a user whose events all have one timestamp has a history too.

    Args:
        dataset: what a fit may learn from.
        mask: which earlier items are left out of the ranking.
        n_users: the largest number of users, drawn among those with at least three events.
        seed: of the sample, and of the order of events with equal timestamps.

    Returns:
        The data set without the events held out, and the queries; a user without a new item has none.
    """
    events, rng = dataset.interactions, np.random.default_rng(seed)
    counts = np.bincount(events.users, minlength=dataset.n_users)
    able = np.flatnonzero(counts >= 3)
    drawn = np.zeros(dataset.n_users, dtype=bool)
    drawn[rng.choice(able, min(n_users, len(able)), replace=False)] = True
    order = np.lexsort((rng.permutation(len(events)), events.timestamps, events.users))
    from_end = np.empty(len(events), dtype=np.int64)  # 0: the user's last event
    from_end[order] = np.cumsum(counts)[events.users[order]] - 1 - np.arange(len(events))
    newest = np.full(dataset.n_users, np.iinfo(np.int64).min)
    np.maximum.at(newest, events.users, events.timestamps)
    held_out = drawn[events.users] & (events.timestamps == newest[events.users])
    held_out &= from_end < counts[events.users] // 2
    past = dataset.where(~held_out)
    return past, _queries(past, events.where(held_out), mask)


def _queries(past: Dataset, chosen: Interactions, mask: SeenPolicy, max_users: int | None = None) -> Holdout:
    """One query for each user with a target among the chosen events, or for a sample of `max_users` of them."""
    masked = _masked_items(past, mask)
    targets = replace(past, interactions=chosen).seen
    targets = (targets.astype(np.int8) - targets.multiply(masked).astype(np.int8)).astype(bool)
    targets.eliminate_zeros()
    users = np.flatnonzero(np.diff(targets.indptr)).astype(np.int32)
    found = len(users)
    if max_users is not None and found > max_users:
        users = users[_sampled_rows(found, max_users, seed=0)]
    drawn_from = found if found > len(users) else None
    return Holdout(users, past.histories(users), targets[users], masked[users], drawn_from)


def _sampled_rows(n: int, size: int, seed: int) -> npt.NDArray[np.int64]:
    """`size` of the rows 0 to n - 1, drawn with the seed, int64 [size] ascending. n must exceed size."""
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


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
        digest.update(np.ascontiguousarray(column).data)
    return Split(protocol, train, validation, before_test, test, known_until, mask, digest.hexdigest())


def _iso_time(micros: int) -> str:
    return f"{np.datetime64(int(micros), 'us').astype('datetime64[s]')}Z"
