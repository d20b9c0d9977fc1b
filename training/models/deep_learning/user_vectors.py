"""From histories to user vectors: the one function that validation during training and serving both use."""

import numpy as np
import torch
from torch import Tensor

from feature_store.online import Histories
from training.models.deep_learning.network import UserTower
from training.models.deep_learning.packing import Integers, Packing


def user_vectors(
    tower: UserTower,
    histories: Histories,
    item_vectors: Tensor,
    type_vectors: Tensor,
    max_length: int,
    presence: Tensor | None = None,
) -> Tensor:
    """User vectors [b, d + k] of the newest `max_length` events, on the device of `item_vectors`, without dropout.

    Args:
        tower: in evaluation mode.
        histories: a batch of b histories.
        item_vectors: [n_items, d].
        type_vectors: [n_types, d].
        max_length: newest events that are read.
        presence: [b, 1 + l], weights of the start token and of the l events of the longest history; None: all 1.
    """
    device = item_vectors.device
    lengths = np.minimum(histories.lengths, max_length)
    packing = Packing.of(lengths + 1, tower.heads, device)
    events = _newest_events(histories, lengths, packing.order)
    items, types, weights = (
        torch.from_numpy(column).to(device)
        for column in (histories.items[events], histories.types[events].astype(np.int32), histories.weights[events])
    )
    inputs = tower.embed_packed(
        item_vectors.index_select(0, items), type_vectors.index_select(0, types), weights, packing
    )
    if presence is not None:
        presence = presence[torch.from_numpy(packing.order).to(device)]
    users = tower.newest(inputs, packing, presence)
    back = np.empty_like(packing.order)
    back[packing.order] = np.arange(len(back))
    return users[torch.from_numpy(back).to(device)]


def _newest_events(histories: Histories, lengths: Integers, order: Integers) -> Integers:
    """Indices of the newest `lengths[row]` events of each history, histories in `order`. lengths, order: int64 [b]."""
    lengths = lengths[order]
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(histories.offsets[order + 1] - ends, lengths)
