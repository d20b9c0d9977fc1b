"""Repeat consumption: how much the score of an item gains from the user's earlier events with the same item.

A transformer over item vectors predicts items that are like those of a history, and ranks the items of the history
itself poorly, although most of what people buy is what they bought before (Li et al., "A next basket recommendation
reality check", TOIS 2023). So the score of an item that is in the history gains

    sum over half-lives m of strength_m(item) * log(1 + scale_m * count_m(item))

where count_m is the sum of the item's event weights, halved with every half-life of days before the newest event of
the history. The strengths are linear in the item's vector and learned with the network, since milk is bought again and
a lawn mower is not. To model repeats apart from new items is the idea of RepeatNet (Ren et al., AAAI 2019).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from feature_store import columns as c
from feature_store.online import Histories
from training.data.dataset import MIN_REPEAT_SHARE, Dataset
from training.models.contract import FloatMatrix, Positions
from training.models.deep_learning.config import DeepLearningConfig


class RepeatConsumption(nn.Module):
    """The learned parameters, for k half-lives; without half-lives there are none, and it adds nothing."""

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
        """The gain in score, [...]. strengths, counts: [..., k] of the same items."""
        return (strengths * torch.log1p(self.log_scale.exp() * counts)).sum(-1)


class DecayedCounts(NamedTuple):
    """The n distinct (row, item) pairs of a batch of histories, by row and then by item."""

    rows: npt.NDArray[np.int64]  # [n]
    items: npt.NDArray[np.int64]  # [n]
    values: npt.NDArray[np.float32]  # [n, k] decayed sums of event weights


def decayed_counts(histories: Histories, half_lives: tuple[float, ...], n_items: int) -> DecayedCounts:
    """Decayed counts as of the newest event of each history. half_lives: k half-lives in days."""
    keys, pair = np.unique(histories.rows * n_items + histories.items, return_inverse=True)
    newest = histories.timestamps[histories.offsets[histories.rows + 1] - 1]
    ages = (newest - histories.timestamps) / c.MICROS_PER_DAY
    values = [np.bincount(pair, histories.weights * 0.5 ** (ages / days), len(keys)) for days in half_lives]
    return DecayedCounts(keys // n_items, keys % n_items, np.stack(values, axis=1).astype(np.float32))


def learns_repeats(dataset: Dataset, config: DeepLearningConfig) -> bool:
    """Whether the data hold enough repeats and the configuration has half-lives for them."""
    return bool(config.repeat_half_lives) and dataset.repeat_share >= MIN_REPEAT_SHARE


def add_repeat_scores(
    scores: FloatMatrix,
    histories: Histories,
    repeats: RepeatConsumption,
    strengths: Tensor,
    candidates: Positions | None = None,
) -> None:
    """Add the gain from repeat consumption to scores, in place.

    Args:
        scores: [b, n_items], or [b, n_candidates].
        histories: a batch of b histories.
        repeats: the learned parameters.
        strengths: [n_items, k] of all items.
        candidates: int [n_candidates] distinct positions; None: all items.
    """
    rows, items, values = decayed_counts(histories, repeats.half_lives, len(strengths))
    if candidates is None:
        columns = items
    else:
        column_of = np.full(len(strengths), -1, dtype=np.int64)
        column_of[candidates] = np.arange(len(candidates))
        columns = column_of[items]
        kept = columns >= 0
        rows, items, values, columns = rows[kept], items[kept], values[kept], columns[kept]
    scores[rows, columns] += _gains(repeats, strengths, items, values)


def repeat_scores(histories: Histories, items: Positions, repeats: RepeatConsumption, strengths: Tensor) -> FloatMatrix:
    """The gain of each of m items per history, float32 [b, m]; 0 where the history lacks the item.

    items: int [b, m]; negative where there is no item.
    """
    n_items = len(strengths)
    rows, held_items, values = decayed_counts(histories, repeats.half_lives, n_items)
    found = np.zeros(items.shape, dtype=np.float32)
    if not len(rows):
        return found
    keys = rows * n_items + held_items
    wanted = np.arange(len(items))[:, None] * n_items + items
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    held = (keys[places] == wanted) & (items >= 0)
    found[held] = _gains(repeats, strengths, held_items, values)[places[held]]
    return found


def _gains(
    repeats: RepeatConsumption, strengths: Tensor, items: npt.NDArray[np.int64], counts: FloatMatrix
) -> FloatMatrix:
    device = strengths.device
    with torch.inference_mode():
        added = repeats(strengths[torch.from_numpy(items).to(device)], torch.from_numpy(counts).to(device))
    return added.cpu().numpy()


def decayed_counts_at(
    items: Tensor, weights: Tensor, times: Tensor, rows: Tensor, places: Tensor, half_lives: tuple[float, ...]
) -> Tensor:
    """Decayed counts at n places within padded training sequences, float32 [n, l, k].

    Entry [p, e] belongs to event e of the sequence of place p. The count of an item stands at its last event in the
    context of the place; all other entries are zero.

    Args:
        items: int64 [b, l].
        weights: [b, l].
        times: int64 [b, l] microseconds, ascending in each row except for the padding.
        rows: int64 [n] the sequence of each place.
        places: int64 [n] the context length of each place: how many events of the sequence are known.
        half_lives: k half-lives in days.
    """
    length = items.shape[1]
    order = torch.arange(length, device=items.device)
    same = items.unsqueeze(2) == items.unsqueeze(1)  # [b, l, l]
    later = torch.where(same & (order > order.unsqueeze(1)), order, length)
    following = later.amin(dim=2)  # [b, l] index of the item's next event
    context = places.unsqueeze(1)
    last = (order < context) & (following[rows] >= context)  # [n, l]
    days = (times - times[:, :1]).double() / c.MICROS_PER_DAY
    newest = (places - 1).clamp_min(0)
    counts = []
    for half_life in half_lives:
        # float64 can grow for a thousand half-lives from the first event on; float32 would overflow after 127.
        growth = torch.exp2((days / half_life).clamp_max(1_000))
        reached = (same * (weights * growth).unsqueeze(1)).cumsum(dim=2)[rows, :, newest]  # [n, l]
        now = growth[rows, newest].unsqueeze(1)
        counts.append((reached / now).float() * last)
    return torch.stack(counts, dim=2)
