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
        trends: Tensor,
        moments: Tensor,
        targets: Tensor,
        counted: Tensor,
        log_chance: Tensor | None = None,
    ) -> Tensor:
        """Mean loss over the counted places, a scalar.

        Args:
            items, types: [b, l, d] vectors of the events and of their types.
            weights: [b, l].
            candidates: [c, d].
            trends: [m, k, c] of the candidates at m moments.
            moments: int64 [b, l], the moment of each event.
            targets: int64 [b, l], index of each event's item among the candidates.
            counted: bool [b, l].
            log_chance: [c] log of the chance that each candidate is in the sample; None where they are the whole
                catalogue. Taking it off makes the sampled softmax estimate the full one (Bengio and Senecal, 2008).
        """
        inputs = self.network.users.embed(items[:, :-1], types[:, :-1], weights[:, :-1])
        users = self.network.users(inputs)[counted]  # [n, d + k]: place p has seen p events and predicts event p
        order = torch.argsort(moments[counted], stable=True)
        groups, sizes = torch.unique_consecutive(moments[counted][order], return_counts=True)
        split = sizes.tolist()
        parts = zip(torch.split(users[order], split), torch.split(targets[counted][order], split), strict=True)
        loss = users.new_zeros(())
        for moment, (asked, answers) in zip(groups.tolist(), parts, strict=True):
            # As when serving: one dot product with what the items are at that moment. No trend is laid out per place.
            logits = scores(asked, torch.cat([candidates, trends[moment].T], dim=1))
            if log_chance is not None:
                logits = logits - log_chance
            loss = loss + functional.cross_entropy(logits, answers, reduction="sum")
        return loss / len(users)


def sample_log_chance(counts: Tensor, n_targets: int, n_drawn: int) -> Tensor:
    """Log chance that an item enters a sample: as one of `n_targets` targets or among `n_drawn` uniform draws.

    counts: [n] events of each item.
    """
    share = counts / counts.sum()
    return torch.log(-torch.expm1(-(n_targets * share + n_drawn / len(counts))))
