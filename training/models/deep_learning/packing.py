"""Histories end to end: how the user tower reads a batch of them without computing what pads them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

STEP = 32
"""Histories whose lengths fall into one step attend side by side: fewer, larger products against less padding."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """g histories of about one length, of which the longest has l places."""

    rows: slice  # of the packed histories
    shape: tuple[int, int, int]  # g, heads, l
    reads: Tensor  # int64 [g * heads * l] where each head of a place is among the packed places, [n * 2 * heads, width]
    writes: Tensor  # int64 [places * heads] where each place is among the mixed ones, [g * heads * l, width]


@dataclass(frozen=True)
class Packing:
    """The places of b histories, n in all, shorter histories first. A history begins with its start."""

    order: Integers  # [b] the histories
    longest: int  # places
    lengths: Tensor  # int64 [b] places of each
    ends: Tensor  # int64 [b] the last place of each
    inputs: Tensor  # int64 [n] 0 for a start, else 1 and on: which of the events, in this order
    padded: Tensor  # int64 [b * longest] the places of each; past its end any
    groups: list[Group]

    @classmethod
    def of(cls, lengths: Integers, heads: int, device: torch.device) -> Self:
        """The packing of b > 0 histories with so many places, at least 1 each. lengths: [b]."""
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
