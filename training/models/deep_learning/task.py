"""The training task: predict the next item at every place of a sequence. Loss only; no data, no optimiser."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.deep_learning.network import Network, scores


class NextItemTask(nn.Module):
    """Cross-entropy of the next item against the catalogue, or against a sample of it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        items: Tensor,
        types: Tensor,
        weights: Tensor,
        candidates: Tensor,
        targets: Tensor,
        counted: Tensor,
        log_chance: Tensor,
    ) -> Tensor:
        """Mean loss over the counted places, a scalar.

        items, types: [b, l, d] vectors of the events and their types; weights: [b, l]; candidates: [c, d];
        targets: [b, l] index of each event among the candidates; counted: bool [b, l];
        log_chance: [c] log of the chance that each candidate is in the sample, zeros for the whole catalogue. Taking
        it off makes the sampled softmax estimate the full one (Bengio and Senecal, 2008).
        """
        inputs = self.network.users.embed(items[:, :-1], types[:, :-1], weights[:, :-1])
        users = self.network.users(inputs)  # [b, l, d]: place p has seen p events and predicts event p
        logits = scores(users[counted], candidates) - log_chance
        return functional.cross_entropy(logits, targets[counted])


def sample_log_chance(counts: Tensor, n_targets: int, n_drawn: int) -> Tensor:
    """Log chance that an item enters a sample: as one of `n_targets` targets or among `n_drawn` uniform draws.

    counts: [n] events of each item.
    """
    share = counts / counts.sum()
    return torch.log(-torch.expm1(-(n_targets * share + n_drawn / len(counts))))
