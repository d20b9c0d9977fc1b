"""Training sequences: windows over each user's events, new ones every epoch, in batches of like length."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.dataset import Interactions

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Windows padded at the end to one length."""

    items: Ints  # [b, l]
    types: Ints  # [b, l]
    weights: npt.NDArray[np.float32]  # [b, l]
    timestamps: Ints  # [b, l] microseconds
    moments: Ints  # [b, l] microseconds, when each event is asked for
    before: Ints  # [b, l] events of the window that are known then
    lengths: Ints  # [b]
    counted: npt.NDArray[np.bool_]  # [b, l] places whose event is a target of the loss


def epoch(
    events: Interactions,
    window: int,
    batch_size: int,
    rng: np.random.Generator,
    horizon: int | None = None,
    asked: float = 1.0,
) -> Iterator[tuple[float, Batch]]:
    """All events once, as windows of at most `window` events; each batch with the share of the epoch before it.

    Events of one moment come in random order: their order by position is an accident of storage that no request
    will repeat. A long history is cut at random places. The first event of a window is a target only where it is the
    user's first, since otherwise the window does not show what went before it.

    Args:
        events: at least one.
        window: events of a sequence at most.
        batch_size: sequences.
        rng: draws order, windows and moments.
        horizon: microseconds. Each event is asked for at a random moment up to so long before it and from what was
            known then, so that the model learns what a user chooses within that time and not what completes a basket.
            None: it is asked for just before it happens, from all events before it.
        asked: share of the events that are a target of the loss, drawn anew each time. What is learned from one state
            of a sequence is much like what is learned from the next, and a large catalogue makes each one dear.
    """
    order = np.lexsort((rng.random(len(events)), events.timestamps, events.users))
    events = events.where(order)
    moments, known = _moments(events, horizon, rng)
    starts, ends, first = _windows(events.users, window, rng)
    lengths = ends - starts
    shuffled = rng.permutation(len(starts))
    pool = batch_size * 32  # sorted within pools: little padding, and batches still differ from epoch to epoch
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
        before = np.where(valid, np.maximum(known[flat] - starts[rows, None], 0), 0)
        counted = valid & ((before > 0) | first[rows, None])
        if asked < 1:
            counted &= rng.random(counted.shape) < asked
        batch = Batch(
            items=np.where(valid, events.items[flat], 0).astype(np.int64),
            types=np.where(valid, events.types[flat], 0).astype(np.int64),
            weights=np.where(valid, events.weights[flat], 0).astype(np.float32),
            timestamps=events.timestamps[flat],
            moments=moments[flat],
            before=before,
            lengths=lengths[rows],
            counted=counted,
        )
        yield done / len(batches), batch


def _moments(events: Interactions, horizon: int | None, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """When each event is asked for, and where the first event lies that its user had not had by then, both [n].

    events: sorted by user and time.
    """
    n = len(events)
    if horizon is None:
        return events.timestamps, np.arange(n)
    moments = events.timestamps - rng.integers(0, horizon, n, endpoint=True)
    # Moments sort in front of the events of the same time, which are not known yet.
    asked = np.repeat((True, False), n)
    order = np.lexsort(
        (~asked, np.concatenate((moments, events.timestamps)), np.concatenate((events.users, events.users)))
    )
    known = np.empty(2 * n, dtype=np.int64)
    known[order] = np.cumsum(~asked[order])
    return moments, known[:n]


def _windows(
    users: npt.NDArray[np.int32], window: int, rng: np.random.Generator
) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Start, end and "starts a history" of each window. users: int32 [n], ascending."""
    n = len(users)
    new_user = np.concatenate(([True], users[1:] != users[:-1]))
    user_starts = np.flatnonzero(new_user)
    counts = np.diff(np.append(user_starts, n))
    place = np.arange(n) - np.repeat(user_starts, counts)
    shift = np.where(counts > window, rng.integers(0, window, len(counts)), 0)  # how much the first window is short
    window_of = (place + np.repeat(shift, counts)) // window
    new_window = new_user | np.concatenate(([True], window_of[1:] != window_of[:-1]))
    starts = np.flatnonzero(new_window)
    return starts, np.append(starts[1:], n), new_user[starts]
