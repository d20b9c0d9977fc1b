"""What says "again": how an item that is in the user's history gains from having been chosen before.

A transformer over vectors tells what goes with a history and is poor at repeating it, though most of what people buy
is what they bought before (Li et al., "A next basket recommendation reality check", TOIS 2023). So the score of an
item of the history gets

    sum over memories m of strength_m(item) * log(1 + scale_m * count_m(item))

where the count in memory m halves with every half-life of days before the newest event of the history. The strengths
are linear in the item's vector and learned with the network: milk is bought again, a lawn mower is not. That a memory
of what was chosen beside a network of what is new does best is the idea of RepeatNet (Ren et al., AAAI 2019).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from feature_store import columns as c
from feature_store.online import Histories
from training.data.dataset import Interactions
from training.models.contract import FloatMatrix, Positions
from training.models.deep_learning.config import DeepLearningConfig


class Again(nn.Module):
    """The learned part. k memories, as many as there are half-lives; a model without memories adds nothing."""

    def __init__(self, dimensions: int, half_lives: tuple[float, ...]) -> None:
        super().__init__()
        self.half_lives = half_lives
        if not half_lives:
            return
        self.strength = nn.Linear(dimensions, len(half_lives))
        self.log_scale = nn.Parameter(torch.zeros(len(half_lives)))
        nn.init.zeros_(self.strength.weight)
        nn.init.constant_(self.strength.bias, 1 / len(half_lives))

    def forward(self, strengths: Tensor, counts: Tensor) -> Tensor:
        """What is added to scores, [...]. strengths, counts: [..., k] of the same items."""
        return (strengths * torch.log1p(self.log_scale.exp() * counts)).sum(-1)


class Counts(NamedTuple):
    """The distinct items of a batch of histories, by row and then by item."""

    rows: npt.NDArray[np.int64]  # [n]
    items: npt.NDArray[np.int64]  # [n]
    values: npt.NDArray[np.float32]  # [n, k] decayed sums of event weights


def count(histories: Histories, half_lives: tuple[float, ...], n_items: int) -> Counts:
    """Decayed counts as of the newest event of each history. half_lives: k of them, in days."""
    keys, pair = np.unique(histories.rows * n_items + histories.items, return_inverse=True)
    newest = histories.timestamps[histories.offsets[histories.rows + 1] - 1]
    ages = (newest - histories.timestamps) / c.MICROS_PER_DAY
    values = [np.bincount(pair, histories.weights * 0.5 ** (ages / days), len(keys)) for days in half_lives]
    return Counts(keys // n_items, keys % n_items, np.stack(values, axis=1).astype(np.float32))


OFTEN = 0.2
"""Share of events that repeat an item of their user, from which on it is learned what repetition adds."""


def share_of_repeats(events: Interactions) -> float:
    """Share of the events whose user had the item before."""
    pairs = np.unique(np.stack([events.users, events.items]), axis=1).shape[1]
    return 1 - pairs / len(events)


def repeats_count(events: Interactions, config: DeepLearningConfig) -> bool:
    """Whether people choose items again and the configuration wants it learned."""
    return bool(config.repeat_half_lives) and share_of_repeats(events) >= OFTEN


def add_again(
    scores: FloatMatrix, histories: Histories, again: Again, strengths: Tensor, candidates: Positions | None = None
) -> None:
    """Add what repetition does to scores, in place.

    Args:
        scores: [b, n_items], or [b, c] of the candidates.
        histories: b of them.
        again: the learned part.
        strengths: [n_items, k] of all items.
        candidates: int [c] distinct positions; None: all items.
    """
    rows, items, values = count(histories, again.half_lives, len(strengths))
    if candidates is None:
        columns = items
    else:
        column_of = np.full(len(strengths), -1, dtype=np.int64)
        column_of[candidates] = np.arange(len(candidates))
        columns = column_of[items]
        kept = columns >= 0
        rows, items, values, columns = rows[kept], items[kept], values[kept], columns[kept]
    scores[rows, columns] += _values(again, strengths, items, values)


def again_of(histories: Histories, asked: Positions, again: Again, strengths: Tensor) -> FloatMatrix:
    """What repetition adds to the scores of these items, float32 [b, m]; 0 where the history lacks them.

    asked: int [b, m], of any sign where there is no item.
    """
    n_items = len(strengths)
    rows, items, values = count(histories, again.half_lives, n_items)
    found = np.zeros(asked.shape, dtype=np.float32)
    if not len(rows):
        return found
    keys = rows * n_items + items
    wanted = np.arange(len(asked))[:, None] * n_items + asked
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    held = (keys[places] == wanted) & (asked >= 0)
    found[held] = _values(again, strengths, items, values)[places[held]]
    return found


def _values(again: Again, strengths: Tensor, items: npt.NDArray[np.int64], counts: FloatMatrix) -> FloatMatrix:
    device = strengths.device
    with torch.inference_mode():
        added = again(strengths[torch.from_numpy(items).to(device)], torch.from_numpy(counts).to(device))
    return added.cpu().numpy()


def count_sequences(
    items: Tensor, weights: Tensor, times: Tensor, rows: Tensor, places: Tensor, half_lives: tuple[float, ...]
) -> Tensor:
    """The same at n places within padded sequences: float32 [n, l, k] at each place of the sequence.

    Each item that the past of a place holds has its count at the last of its events in that past; zero is elsewhere.

    Args:
        items: int64 [b, l].
        weights: [b, l].
        times: int64 [b, l] microseconds, ascending in each row but for the padding.
        rows: int64 [n] the sequence of each place.
        places: int64 [n] how many events of the sequence are its past.
        half_lives: k of them, in days.
    """
    length = items.shape[1]
    order = torch.arange(length, device=items.device)
    same = items.unsqueeze(2) == items.unsqueeze(1)  # [b, l, l]
    later = torch.where(same & (order > order.unsqueeze(1)), order, length)
    following = later.amin(dim=2)  # [b, l] where the item comes next
    past = places.unsqueeze(1)
    last = (order < past) & (following[rows] >= past)  # [n, l]
    days = (times - times[:, :1]).double() / c.MICROS_PER_DAY
    before = (places - 1).clamp_min(0)
    counts = []
    for half_life in half_lives:
        # Doubles, whose range is a thousand half-lives from the first event on; a float's would end after 127.
        growth = torch.exp2((days / half_life).clamp_max(1_000))
        reached = (same * (weights * growth).unsqueeze(1)).cumsum(dim=2)[rows, :, before]  # [n, l]
        now = growth[rows, before].unsqueeze(1)
        counts.append((reached / now).float() * last)
    return torch.stack(counts, dim=2)
