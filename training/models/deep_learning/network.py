"""The network: an item tower (id + content) and a user tower (a causal transformer over events). torch only.

A score is the dot product of a user vector [d + k] and an item's [d + k]: its vector [d] beside its k trends.

After SASRec (Kang and McAuley, 2018) with three changes: blocks are pre-norm; places are relative (a bias per head
and distance, Raffel et al., 2020), so that a history means the same wherever it is cut; and every attention takes the
*presence* of each event, whose gradient says what leaving an event out would do (`attribution`).
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.deep_learning.again import Again
from training.models.deep_learning.config import DeepLearningConfig

N_TYPES = 4
N_DISTANCES = 32
"""Buckets of distance between two events: exact up to 15, logarithmic past that."""


class ItemTower(nn.Module):
    """An item's vector: its id embedding plus its projected content; content alone where the id taught nothing."""

    def __init__(self, content_width: int, config: DeepLearningConfig) -> None:
        super().__init__()
        self.content = nn.Linear(content_width, config.dimensions, bias=False)
        nn.init.normal_(self.content.weight, std=0.02)

    def forward(self, ids: Tensor, content: Tensor, known: Tensor) -> Tensor:
        """ids: [n, d]; content: [n, content_width]; known: [n] 1 where the id counts, else 0. Returns [n, d]."""
        return ids * known.unsqueeze(-1) + cast(Tensor, self.content(content))


class UserTower(nn.Module):
    """A history's vector: the state of its last place. Place 0 is a learned start, alone in an empty history."""

    def __init__(self, config: DeepLearningConfig) -> None:
        super().__init__()
        d = config.dimensions
        self.start = nn.Parameter(torch.randn(d) * 0.02)
        self.strength = nn.Parameter(torch.zeros(d))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(d)
        self.trend = nn.Linear(d, len(config.trend_half_lives))
        if config.trend_half_lives:
            nn.init.zeros_(self.trend.weight)
            nn.init.constant_(self.trend.bias, 0.5)
        self.dropout = nn.Dropout(config.dropout)

    def embed(self, items: Tensor, types: Tensor, weights: Tensor) -> Tensor:
        """Events as inputs behind the start. items, types: [b, l, d]; weights: [b, l]. Returns [b, l + 1, d]."""
        events = items + types + weights.unsqueeze(-1) * self.strength
        start = self.start.expand(len(events), 1, -1)
        return cast(Tensor, self.dropout(torch.cat([start, events], dim=1)))

    def forward(self, inputs: Tensor) -> Tensor:
        """The user vector at every place, [b, places, d + k]. inputs: [b, places, d], padded at the end."""
        places = torch.arange(inputs.shape[1], device=inputs.device)
        states = inputs
        for block in self.blocks:
            states = block(states, places.unsqueeze(0), None)
        return self._finish(states)

    def last(self, inputs: Tensor, lengths: Tensor, presence: Tensor | None = None) -> Tensor:
        """The user vector after the last event only, [b, d + k]; the last block computes no other place.

        inputs: [b, places, d], padded at the end; lengths: [b] events of each history; presence: [b, places].
        """
        places = torch.arange(inputs.shape[1], device=inputs.device).unsqueeze(0)
        states = inputs
        for block in self.blocks[:-1]:
            states = block(states, places, presence)
        states = self.blocks[-1](states, lengths.unsqueeze(1), presence)  # [b, 1, d]
        return self._finish(states[:, 0])

    def _finish(self, states: Tensor) -> Tensor:
        """[..., d] states to [..., d + k] user vectors, whose last k numbers weigh the trends of the items."""
        users = self.norm(states)
        return torch.cat([users, self.trend(users)], dim=-1)


class Block(nn.Module):
    """Pre-norm attention over the events up to each place, then a feed-forward layer; both pass through gates.

    Attention is gated by what asks (as in HSTU, Zhai et al., 2024, and LiGR, Borisyuk et al., 2025), the feed-forward
    layer is SwiGLU (Shazeer, 2020). docs/models-log.md has what either was worth.
    """

    def __init__(self, config: DeepLearningConfig) -> None:
        super().__init__()
        d = config.dimensions
        if d % config.heads:
            raise ValueError(f"heads ({config.heads}) must divide dimensions ({d})")
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(d)
        self.query_gate = nn.Linear(d, 2 * d)
        self.key_value = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, d)
        self.distance = nn.Parameter(torch.zeros(config.heads, N_DISTANCES))
        self.feed_norm = nn.LayerNorm(d)
        hidden = 8 * d // 3  # three matrices of this width have the parameters of two of 4 d
        self.widen = nn.Linear(d, 2 * hidden)
        self.narrow = nn.Linear(hidden, d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, queries: Tensor, presence: Tensor | None) -> Tensor:
        """States of the query places after this block, [b, q, d].

        states: [b, places, d]; queries: [1 or b, q] places, all of them or one a row;
        presence: [b, places], 1 where an event counts in full and 0 where it counts not at all.
        """
        batch, places, d = states.shape
        normed = self.attention_norm(states)
        if queries.shape[1] == places:
            asked, residual = normed, states
        else:
            index = queries.unsqueeze(-1).expand(-1, -1, d)
            asked, residual = normed.gather(1, index), states.gather(1, index)
        q, gate = self.query_gate(asked).chunk(2, dim=-1)  # [b, q, d] each
        q = (q / math.sqrt(d // self.heads)).view(batch, -1, self.heads, d // self.heads).transpose(1, 2)
        k, v = self.key_value(normed).view(batch, places, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        distances = queries.unsqueeze(-1) - torch.arange(places, device=states.device)  # [1 or b, q, places]
        bias = self.distance[:, bucket(distances)].transpose(0, 1)  # [1 or b, heads, q, places]
        bias = bias.masked_fill((distances < 0).unsqueeze(1), -math.inf)
        if presence is not None:
            bias = bias + presence.log()[:, None, None, :]  # weights times presence, normalised again
        weights = torch.softmax((q @ k.transpose(-1, -2)).add_(bias.to(q.dtype)), dim=-1)  # [b, heads, q, places]
        mixed = (weights @ v).transpose(1, 2).reshape(batch, -1, d)
        states = residual + self.dropout(self.out(mixed * torch.sigmoid(gate)))
        opened, wide = self.widen(self.feed_norm(states)).chunk(2, dim=-1)
        return states + cast(Tensor, self.dropout(self.narrow(functional.silu(opened) * wide)))


def bucket(distances: Tensor) -> Tensor:
    """Buckets of distances >= 0, int64 of the same shape in [0, N_DISTANCES); what lies ahead falls into 0."""
    exact = N_DISTANCES // 2
    near = distances.clamp(min=0)
    far = exact + (torch.log(near.clamp(min=1) / exact) / math.log(64) * exact).long()
    return torch.where(near < exact, near, far.clamp(max=N_DISTANCES - 1))


class Network(nn.Module):
    """Both towers, what repetition adds, and the embedding of event types: all that scoring needs beside items."""

    def __init__(self, content_width: int, config: DeepLearningConfig) -> None:
        super().__init__()
        self.items = ItemTower(content_width, config)
        self.users = UserTower(config)
        self.again = Again(config.dimensions, config.repeat_half_lives)
        self.types = nn.Parameter(torch.zeros(N_TYPES, config.dimensions), requires_grad=False)


def scores(users: Tensor, items: Tensor) -> Tensor:
    """Raw scores, [n_users, n_items], of user vectors [n_users, d + k] and items [n_items, d + k]."""
    return functional.linear(users, items)
