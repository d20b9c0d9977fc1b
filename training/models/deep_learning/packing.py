"""A batch of histories laid end to end, so that the user tower computes nothing for padding."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

STEP = 32
"""Histories whose lengths fall into the same step of 32 are multiplied together: few products and little padding."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """g histories of similar length, of which the longest has l places."""

    rows: slice  # of the packed histories
    shape: tuple[int, int, int]  # g, heads, l
    reads: Tensor  # int64 [g * heads * l] the row of each (history, head, place) in [n * 2 * heads, width] vectors
    writes: Tensor  # int64 [places * heads] the row of each (place, head) in [g * heads * l, width] vectors


@dataclass(frozen=True)
class Packing:
    """The n places of b histories, shorter histories first. The first place of each history is the start token."""

    order: Integers  # [b] the histories, by length
    longest: int  # places of the longest history
    lengths: Tensor  # int64 [b] places of each
    ends: Tensor  # int64 [b] the last place of each
    inputs: Tensor  # int64 [n] 0 for a start token, else 1 + the index of the event, in this order
    padded: Tensor  # int64 [b * longest] the places of each history; past its end, places of other histories
    groups: list[Group]

    @classmethod
    def of(cls, lengths: Integers, heads: int, device: torch.device) -> Self:
        """The packing of b > 0 histories. lengths: int64 [b], places of each history, at least 1."""
        order = np.argsort(lengths, kind="stable")
        lengths = lengths[order]
        ends = np.cumsum(lengths)
        longest, n = int(lengths[-1]), int(ends[-1])
        starts = np.zeros(n, dtype=bool)
        starts[ends - lengths] = True
        padded = np.minimum((ends - lengths)[:, None] + np.arange(longest), n - 1)

        def on_device(array: Integers) -> Tensor:
            return torch.from_numpy(array.ravel()).to(device)

        head, groups = np.arange(heads), []
        bounds = np.flatnonzero(np.diff(lengths // STEP, prepend=-1, append=-1))
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            places = int(lengths[end - 1])
            reads = padded[start:end, None, :places] * (2 * heads) + head[:, None]
            row, place = np.nonzero(np.arange(places) < lengths[start:end, None])
            writes = (row * heads * places + place)[:, None] + head * places
            groups.append(Group(slice(start, end), (end - start, heads, places), on_device(reads), on_device(writes)))
        inputs = np.where(starts, 0, np.cumsum(~starts))
        return cls(
            order, longest, on_device(lengths), on_device(ends - 1), on_device(inputs), on_device(padded), groups
        )
