"""The network, the loss and the training loop in plain PyTorch, without imports of the platform."""

import time

import torch
from torch import Tensor, nn
from torch.nn import functional


class ItemFactors(nn.Module):
    """Factors of an item in a history (source) and as a candidate (target), and its bias."""

    def __init__(self, n_items: int, factors: int) -> None:
        super().__init__()
        self.source = nn.Parameter(torch.randn(n_items, factors) * 0.05)  # [n_items, d]
        self.target = nn.Parameter(torch.randn(n_items, factors) * 0.05)  # [n_items, d]
        self.bias = nn.Parameter(torch.zeros(n_items))  # [n_items]

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores [b] of items [b] for user vectors [b, d]."""
        return (users * self.target[items]).sum(1) + self.bias[items]


def fit_factors(
    rows: Tensor,
    items: Tensor,
    weights: Tensor,
    n_items: int,
    *,
    factors: int,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    seconds: float,
) -> ItemFactors:
    """Learn to score what a user chose above a random item (BPR: Rendle et al., 2009).

    A user is the weighted sum of what else it chose over the square root of its size, as in FISM (Kabbur et al.,
    2013). The scored item is left out of the sum, because an item must not predict itself.

    Args:
        rows: int64 [n] users, each distinct item of theirs once; items: int64 [n]; weights: float32 [n].
        n_items: size of the catalogue.
        seconds: the fit ends with the epoch in which this time runs out.
    """
    network = ItemFactors(n_items, factors)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    sizes = torch.bincount(rows).clamp(min=1)
    began = time.monotonic()
    for _ in range(epochs):
        for chosen in torch.randperm(len(rows)).split(2_048):
            said = weights.unsqueeze(1) * network.source[items]  # [n, d]
            sums = said.new_zeros(len(sizes), factors).index_add(0, rows, said)  # [n_users, d]
            user = rows[chosen]
            others = (sizes[user] - 1).clamp(min=1).sqrt().unsqueeze(1)
            users = (sums[user] - said[chosen]) / others  # [b, d]
            drawn = torch.randint(n_items, (len(chosen),))
            loss = -functional.logsigmoid(network(users, items[chosen]) - network(users, drawn)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        if time.monotonic() - began > seconds:
            break
    return network.requires_grad_(False)
