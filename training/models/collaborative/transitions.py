"""Transitions: a regression of every event on the decayed events before it, in closed form."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp

from training.data.dataset import Dataset, Interactions
from training.models.collaborative.ease import DOUBLE_UP_TO
from training.models.contract import FloatMatrix

HALF_LIVES_READ = 8
"""A decayed history ends after this many half-lives, where an event weighs less than half a percent."""
CELLS = 20_000_000
"""Entries of the decayed histories held at once; bounds the memory of a fit."""


def transition_weights(
    dataset: Dataset, half_lives: Sequence[float], regularisation: float, seed: int
) -> list[FloatMatrix]:
    """One matrix B_t per half-life, float32 [n_items, n_items]: the weight of item j in decayed history t for item i.

    They minimise, over all events p, |y_p - sum over t of x_pt B_t|^2 + regularisation * sum of |B_t|^2. y_p is the
    event's item; x_pt are the items before it in the user's history, whose weights halve with every `half_lives[t]`
    events of age. With one half-life this is the sequential linear model of Choi et al. (SLIT, 2021); a short and a
    long one together separate what follows immediately from what matches a taste.

    Args:
        dataset: all events are used, without the bound on histories.
        half_lives: in events.
        regularisation: of all matrices alike.
        seed: shuffles events with equal timestamps, whose order in the data set is arbitrary.
    """
    n_items, decays = dataset.n_items, 0.5 ** (1 / np.array(half_lives))
    size = len(half_lives) * n_items
    exact = np.float64 if size <= DOUBLE_UP_TO else np.float32
    gram, follows = np.zeros((size, size), exact), np.zeros((size, n_items), exact)
    spans = [slice(t * n_items, (t + 1) * n_items) for t in range(len(half_lives))]
    longest = int(np.ceil(HALF_LIVES_READ * max(half_lives)))
    for events in _chunks(_in_order(dataset.interactions, seed), max(1, CELLS // longest)):
        weights = np.log2(1 + events.weights)
        ends = np.searchsorted(events.users, events.users, side="right")
        later = ends - 1 - np.arange(len(events))  # events of the same user after each
        now = sp.csr_array(
            (weights, events.items, np.arange(len(events) + 1)), shape=(len(events), n_items), dtype=np.float32
        )
        decayed = [sp.csr_array(_decayed_histories(events, weights, half_life, n_items).T) for half_life in half_lives]
        for t, (span, history) in enumerate(zip(spans, decayed, strict=True)):
            follows[span] += (history @ now).toarray()
            for other, column in enumerate(spans):
                # Two events that are both in the history at p are in it at every later event, weaker by both decays
                # each time. The sum over p is a geometric series, so each pair is visited once.
                fading = decays[t] * decays[other]
                series = (1 - fading**later) / (1 - fading)
                pairs = decays[t] * (history @ (sp.diags_array(series.astype(np.float32)) @ now)).toarray()
                gram[span, column] += pairs
                gram[column, span] += pairs.T
                alone = np.bincount(events.items, weights**2 * series, n_items)
                gram[np.arange(span.start, span.stop), np.arange(column.start, column.stop)] += alone
    gram[np.diag_indices(size)] += regularisation
    solution = scipy.linalg.solve(gram, follows, assume_a="pos", overwrite_a=True, overwrite_b=True, check_finite=False)
    return [solution[span].astype(np.float32) for span in spans]


def _decayed_histories(
    events: Interactions, weights: npt.NDArray[np.float32], half_life: float, n_items: int
) -> sp.csr_array:
    """x_pt of every event p, float32 [n_events, n_items]."""
    n = len(events)
    starts = np.searchsorted(events.users, events.users)
    rows, columns, values = [], [], []
    for lag in range(1, int(np.ceil(HALF_LIVES_READ * half_life)) + 1):
        known = np.arange(lag, n)
        known = known[known - lag >= starts[known]]
        if not len(known):
            break
        rows.append(known)
        columns.append(events.items[known - lag])
        values.append((weights[known - lag] * 0.5 ** ((lag - 1) / half_life)).astype(np.float32))
    if not rows:
        return sp.csr_array((n, n_items), dtype=np.float32)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_array(entries, shape=(n, n_items))


def _in_order(events: Interactions, seed: int) -> Interactions:
    """Events by user and time; those with equal timestamps in random order."""
    by_chance = np.random.default_rng(seed).permutation(len(events))
    return events.where(np.lexsort((by_chance, events.timestamps, events.users)))


def _chunks(events: Interactions, size: int) -> Iterator[Interactions]:
    """Events of whole users, about `size` at a time."""
    start = 0
    while start < len(events):
        last = min(start + size, len(events)) - 1
        end = int(np.searchsorted(events.users, events.users[last], side="right"))
        yield events.where(np.arange(start, end))
        start = end
