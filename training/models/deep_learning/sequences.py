"""Training sequences: windows over each user's events, drawn anew every epoch, in batches of similar length."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from training.data.dataset import Interactions

Ints = npt.NDArray[np.int64]
EVENTS_OF_PART = 10_000_000
"""Events whose sequences are drawn at a time, which takes about 80 bytes an event."""


@dataclass(frozen=True)
class Batch:
    """b windows of at most l events, padded at the end to one length."""

    items: Ints  # [b, l]
    types: Ints  # [b, l]
    weights: npt.NDArray[np.float32]  # [b, l]
    timestamps: Ints  # [b, l] microseconds
    query_times: Ints  # [b, l] microseconds, when each event is predicted
    context_lengths: Ints  # [b, l] events of the window that are known at the query time
    lengths: Ints  # [b]
    loss_mask: npt.NDArray[np.bool_]  # [b, l] True where the event is a target of the loss


def epoch(
    events: Interactions,
    window: int,
    batch_size: int,
    rng: np.random.Generator,
    horizon: int | None = None,
    target_share: float = 1.0,
) -> Iterator[tuple[float, Batch]]:
    """Yield every event once, in windows of at most `window` events; each batch with the share of the epoch before it.

    Events with equal timestamps are shuffled, since their order in storage is arbitrary.
    More events than EVENTS_OF_PART are drawn in parts of whole users, one part after the other in random order.
    A long history is cut at random places. The first event of a window is a target only if it is the user's first:
    otherwise the window does not show the events before it.

    Args:
        events: at least one.
        window: largest number of events of a sequence.
        batch_size: sequences of a batch.
        rng: draws orders, windows and query times.
        horizon: microseconds. Each event is predicted at a random time up to this long before it, from the events
            before that time. So the model learns what a user chooses within the horizon, and not which item comes next
            in a basket. None: each event is predicted from all events before it.
        target_share: share of the events that are targets of the loss, drawn anew each time. Targets next to each other
            teach almost the same, and each one is expensive where the catalogue is large.
    """
    if len(events) <= EVENTS_OF_PART:
        yield from _part_of_epoch(events, window, batch_size, rng, horizon, target_share)
        return
    parts = _parts(events.users)
    done = 0
    for number in rng.permutation(len(parts)):
        part = events.part(*parts[number])
        for share, batch in _part_of_epoch(part, window, batch_size, rng, horizon, target_share):
            yield (done + share * len(part)) / len(events), batch
        done += len(part)


def _parts(users: npt.NDArray[np.int32]) -> list[tuple[int, int]]:
    """The bounds of parts of about EVENTS_OF_PART events each, which hold whole users. users: int32 [n] ascending."""
    bounds = [0]
    while bounds[-1] < len(users):
        last = min(bounds[-1] + EVENTS_OF_PART, len(users)) - 1
        bounds.append(int(np.searchsorted(users, users[last], side="right")))
    return list(pairwise(bounds))


def _part_of_epoch(
    events: Interactions,
    window: int,
    batch_size: int,
    rng: np.random.Generator,
    horizon: int | None,
    target_share: float,
) -> Iterator[tuple[float, Batch]]:
    """As `epoch`, for one part of the events."""
    order = np.lexsort((rng.random(len(events)), events.timestamps, events.users))
    events = events.where(order)
    query_times, known = _draw_query_times(events, horizon, rng)
    starts, ends, first = _windows(events.users, window, rng)
    lengths = ends - starts
    shuffled = rng.permutation(len(starts))
    pool = batch_size * 32  # sorting within pools keeps padding low and batches different from epoch to epoch
    batches = []
    for low in range(0, len(shuffled), pool):
        rows = shuffled[low : low + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    for done, index in enumerate(rng.permutation(len(batches))):
        rows = batches[index]
        longest = int(lengths[rows].max())
        places = np.arange(longest)
        valid = places < lengths[rows, None]
        flat = np.where(valid, starts[rows, None] + places, 0)
        context_lengths = np.where(valid, np.maximum(known[flat] - starts[rows, None], 0), 0)
        loss_mask = valid & ((context_lengths > 0) | first[rows, None])
        if target_share < 1:
            loss_mask &= rng.random(loss_mask.shape) < target_share
        batch = Batch(
            items=np.where(valid, events.items[flat], 0).astype(np.int64),
            types=np.where(valid, events.types[flat], 0).astype(np.int64),
            weights=np.where(valid, events.weights[flat], 0).astype(np.float32),
            timestamps=events.timestamps[flat],
            query_times=query_times[flat],
            context_lengths=context_lengths,
            lengths=lengths[rows],
            loss_mask=loss_mask,
        )
        yield done / len(batches), batch


def _draw_query_times(events: Interactions, horizon: int | None, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """The query time of each event, and the index of its user's first event that is not known then, both int64 [n].

    events: sorted by user and time.
    """
    n = len(events)
    if horizon is None:
        return events.timestamps, np.arange(n)
    query_times = events.timestamps - rng.integers(0, horizon, n, endpoint=True)
    # A query sorts before the events of the same time, which it does not know yet.
    is_query = np.repeat((True, False), n)
    order = np.lexsort(
        (~is_query, np.concatenate((query_times, events.timestamps)), np.concatenate((events.users, events.users)))
    )
    known = np.empty(2 * n, dtype=np.int64)
    known[order] = np.cumsum(~is_query[order])
    return query_times, known[:n]


def _windows(
    users: npt.NDArray[np.int32], window: int, rng: np.random.Generator
) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Start and end of each window, and whether it begins a history. users: int32 [n], ascending."""
    n = len(users)
    new_user = np.concatenate(([True], users[1:] != users[:-1]))
    user_starts = np.flatnonzero(new_user)
    counts = np.diff(np.append(user_starts, n))
    place = np.arange(n) - np.repeat(user_starts, counts)
    shift = np.where(
        counts > window, rng.integers(0, window, len(counts)), 0
    )  # events by which the first window is shorter
    window_of = (place + np.repeat(shift, counts)) // window
    new_window = new_user | np.concatenate(([True], window_of[1:] != window_of[:-1]))
    starts = np.flatnonzero(new_window)
    return starts, np.append(starts[1:], n), new_user[starts]
