"""Training sequences: windows over each user's events, new ones every epoch, in batches of like length."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.dataset import Interactions

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Windows padded at the end to one length."""

    items: Ints  # [b, l]
    types: Ints  # [b, l]
    weights: npt.NDArray[np.float32]  # [b, l]
    timestamps: Ints  # [b, l] microseconds
    lengths: Ints  # [b]
    counted: npt.NDArray[np.bool_]  # [b, l] places whose event is a target of the loss


def epoch(
    events: Interactions, window: int, batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[float, Batch]]:
    """All events once, as windows of at most `window` events; each batch with the share of the epoch before it.

    Events of one moment come in random order: their order by position is an accident of storage that no request
    will repeat. A long history is cut at random places. The first event of a window is a target only where it is the
    user's first, since otherwise the window does not show what went before it.
    """
    order = np.lexsort((rng.random(len(events)), events.timestamps, events.users))
    events = events.where(order)
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
        counted = valid.copy()
        counted[:, 0] &= first[rows]
        batch = Batch(
            items=np.where(valid, events.items[flat], 0).astype(np.int64),
            types=np.where(valid, events.types[flat], 0).astype(np.int64),
            weights=np.where(valid, events.weights[flat], 0).astype(np.float32),
            timestamps=events.timestamps[flat],
            lengths=lengths[rows],
            counted=counted,
        )
        yield done / len(batches), batch


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
