"""Attention within each of several histories that lie end to end, in NumPy (see `inference`)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

_LARGEST = 60.0
"""Attention scores up to this need no shift before exp, and sums of a row below 1 / exp(this) need one."""
_SMALLEST_SUM = 1e-25


@dataclass(frozen=True)
class Places:
    """The N places of b histories, end to end. The first place of each history is the start token."""

    spans: list[tuple[int, int]]  # [b] start and end of each history
    starts: Integers  # [b]
    ends: Integers  # [b] the last place of each history
    lengths: Integers  # [b] places of each history, at least 1
    ages: Integers  # [N] how many places of its history come after each place
    events: npt.NDArray[np.bool_]  # bool [N], False for start tokens

    @classmethod
    def of(cls, events: Integers) -> Self:
        """The places of histories with so many events, int64 [b]."""
        lengths = events + 1
        bounds = np.concatenate(([0], np.cumsum(lengths)))
        starts, ends = bounds[:-1], bounds[1:] - 1
        ages = np.repeat(ends, lengths) - np.arange(bounds[-1])
        is_event = np.ones(len(ages), dtype=bool)
        is_event[starts] = False
        return cls(list(pairwise(bounds.tolist())), starts, ends, lengths, ages, is_event)


def attend(q: Floats, k: Floats, v: Floats, bias: Floats, places: Places, mixed: Floats) -> list[Floats]:
    """Causal attention of every place. Returns the weights of each history, [heads, n, n].

    Args:
        q, k, v: [heads, N, width]; queries are scaled.
        bias: [heads, at least n, at least n], -inf for later places.
        mixed: [heads, N, width], where the mixtures of values are written.
    """
    found = []
    for start, end in places.spans:
        n = end - start
        weights: Floats = np.matmul(q[:, start:end], k[:, start:end].transpose(0, 2, 1))
        weights += bias[:, :n, :n]
        if weights.max() > _LARGEST:
            weights -= np.maximum.reduce(weights, axis=2, keepdims=True)
        kept = np.exp(weights)
        ones = np.ones((n, 1), dtype=np.float32)
        sums: Floats = np.matmul(kept, ones)
        if sums.min() < _SMALLEST_SUM:
            weights -= np.maximum.reduce(weights, axis=2, keepdims=True)
            kept = np.exp(weights)
            sums = np.matmul(kept, ones)
        kept *= np.reciprocal(sums)
        np.matmul(kept, v[:, start:end], out=mixed[:, start:end])
        found.append(kept)
    return found


def segment_softmax(scores: Floats, places: Places) -> None:
    """Softmax over the places of each history, in place. scores: [heads, N]."""
    scores -= np.repeat(np.maximum.reduceat(scores, places.starts, axis=1), places.lengths, axis=1)
    np.exp(scores, out=scores)
    scores /= np.repeat(np.add.reduceat(scores, places.starts, axis=1), places.lengths, axis=1)


def sigmoid_of_negated(values: Floats) -> Floats:
    """sigmoid(-values). Overflows of exp to infinity are right: the result is 0."""
    found: Floats = np.exp(values)
    found += 1
    return np.reciprocal(found, out=found)
