"""From histories to user vectors: what training validates with and serving answers with."""

import numpy as np
import torch
from torch import Tensor

from feature_store.online import Histories
from training.models.deep_learning.network import UserTower


def pad(histories: Histories, max_length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The newest events of each history, padded at the end: items, types [b, l] int64; weights [b, l]; lengths [b]."""
    lengths = np.minimum(histories.lengths, max_length)
    places = np.arange(int(lengths.max(initial=0)))
    valid = places < lengths[:, None]
    flat = np.where(valid, (histories.offsets[1:] - lengths)[:, None] + places, 0)
    if not len(histories.items):
        flat = np.zeros((len(lengths), 0), dtype=np.int64)
    return (
        torch.from_numpy(histories.items[flat].astype(np.int64)),
        torch.from_numpy(histories.types[flat].astype(np.int64)),
        torch.from_numpy(np.where(valid, histories.weights[flat], 0).astype(np.float32)),
        torch.from_numpy(lengths),
    )


def user_vectors(
    tower: UserTower,
    histories: Histories,
    item_vectors: Tensor,
    type_vectors: Tensor,
    max_length: int,
    presence: Tensor | None = None,
) -> Tensor:
    """User vectors, [b, d + k], on the device of `item_vectors`.

    item_vectors: [n_items, d]; type_vectors: [n_types, d]; presence: [b, 1 + l] for the start and the padded events.
    """
    items, types, weights, lengths = (column.to(item_vectors.device) for column in pad(histories, max_length))
    inputs = tower.embed(item_vectors[items], type_vectors[types], weights)
    return tower.last(inputs, lengths, presence)
