"""The network: an item tower (id + content) and a user tower (a causal transformer over events). Needs torch only.

A score is the dot product of a user vector [d + k] with an item's vector [d] and its k values of recent popularity.

The network follows SASRec (Kang and McAuley, 2018) with three changes. Blocks are pre-norm. Positions are relative (a
bias per head and distance, Raffel et al., 2020), so that a history means the same wherever it is cut. And attention
takes the *presence* of each event, whose gradient tells what leaving the event out would do (see `attribution`).
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.packing import Packing
from training.models.deep_learning.repeat_consumption import RepeatConsumption

N_TYPES = 4
N_DISTANCES = 32
"""Buckets of the distance between two events: exact up to 15, logarithmic beyond."""


class ItemTower(nn.Module):
    """An item's vector: its id embedding plus its projected content, or content alone where the id has no events."""

    def __init__(self, content_width: int, config: DeepLearningConfig) -> None:
        super().__init__()
        self.content = nn.Linear(content_width, config.dimensions, bias=False)
        nn.init.normal_(self.content.weight, std=0.02)

    def forward(self, ids: Tensor, content: Tensor, id_mask: Tensor) -> Tensor:
        """ids: [n, d]; content: [n, content_width]; id_mask: [n] 1 where the id is used, else 0. Returns [n, d]."""
        return ids * id_mask.unsqueeze(-1) + cast(Tensor, self.content(content))


class UserTower(nn.Module):
    """A history's vector is the state of its last place. Place 0 is a start token, alone in an empty history."""

    def __init__(self, config: DeepLearningConfig) -> None:
        super().__init__()
        d = config.dimensions
        self.heads = config.heads
        self.start = nn.Parameter(torch.randn(d) * 0.02)
        self.strength = nn.Parameter(torch.zeros(d))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(d)
        self.popularity_weights = nn.Linear(d, len(config.popularity_half_lives))
        if config.popularity_half_lives:
            nn.init.zeros_(self.popularity_weights.weight)
            nn.init.constant_(self.popularity_weights.bias, 0.5)
        self.dropout = nn.Dropout(config.dropout)

    def embed(self, items: Tensor, types: Tensor, weights: Tensor) -> Tensor:
        """Input vectors [b, l + 1, d]: the start token, then the events. items, types: [b, l, d]; weights: [b, l]."""
        events = items + types + weights.unsqueeze(-1) * self.strength
        start = self.start.expand(len(events), 1, -1)
        return cast(Tensor, self.dropout(torch.cat([start, events], dim=1)))

    def embed_packed(self, items: Tensor, types: Tensor, weights: Tensor, packing: Packing) -> Tensor:
        """Like `embed`, without dropout and padding: [n, d] for the n places of `packing`.

        items, types: [m, d]; weights: [m], of the m events in the order of `packing`.
        """
        events = torch.addcmul(items + types, weights.unsqueeze(-1), self.strength)
        return torch.cat([self.start.unsqueeze(0), events]).index_select(0, packing.inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """The user vector at every place, [b, places, d + k]. inputs: [b, places, d], padded at the end."""
        states = inputs
        for block in self.blocks:
            states = block(states)
        return self._finish(states)

    def newest(self, inputs: Tensor, packing: Packing, presence: Tensor | None = None) -> Tensor:
        """The user vector after the last event, [b, d + k], without dropout; the last block computes only that place.

        inputs: [n, d], packed; presence: [b, places]. The histories are in the order of `packing`.
        """
        *before, last = (cast(Block, block) for block in self.blocks)
        states = inputs
        for block in before:
            states = block.packed(states, packing, presence)
        return self._finish(last.newest(states, packing, presence))

    def _finish(self, states: Tensor) -> Tensor:
        """[..., d] states to [..., d + k] user vectors, whose last k numbers weigh the recent popularity of items."""
        users = self.norm(states)
        return torch.cat([users, self.popularity_weights(users)], dim=-1)


class Block(nn.Module):
    """Pre-norm attention over the events up to each place, then a feed-forward layer; both are gated.

    The output of attention is multiplied by a gate computed from the query's place (as in HSTU, Zhai et al., 2024, and
    LiGR, Borisyuk et al., 2025). The feed-forward layer is SwiGLU (Shazeer, 2020). docs/models-log.md has the gain of
    both together.
    """

    buckets: Tensor

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
        self.register_buffer("buckets", bucket(torch.arange(config.max_length + 1)), persistent=False)
        self.feed_norm = nn.LayerNorm(d)
        hidden = 8 * d // 3  # three matrices of this width have as many parameters as two of width 4 d
        self.widen = nn.Linear(d, 2 * hidden)
        self.narrow = nn.Linear(hidden, d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor) -> Tensor:
        """States of all places after this block. states: [b, places, d], padded at the end."""
        batch, places, d = states.shape
        normed = self.attention_norm(states)
        q, gate = self.query_gate(normed).chunk(2, dim=-1)  # [b, places, d] each
        q = (q / math.sqrt(d // self.heads)).view(batch, -1, self.heads, d // self.heads).transpose(1, 2)
        k, v = self.key_value(normed).view(batch, places, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        at = torch.arange(places, device=states.device)
        distances = at.unsqueeze(-1) - at  # [places, places]
        bias = self.distance[:, bucket(distances)].masked_fill(distances < 0, -math.inf)  # [heads, places, places]
        weights = torch.softmax((q @ k.transpose(-1, -2)).add_(bias.to(q.dtype)), dim=-1)  # [b, heads, places, places]
        mixed = (weights @ v).transpose(1, 2).reshape(batch, -1, d)
        states = states + self.dropout(self.out(mixed * torch.sigmoid(gate)))
        opened, wide = self.widen(self.feed_norm(states)).chunk(2, dim=-1)
        return states + cast(Tensor, self.dropout(self.narrow(functional.silu(opened) * wide)))

    def packed(self, states: Tensor, packing: Packing, presence: Tensor | None) -> Tensor:
        """Like `forward`, without dropout, for packed places. states: [n, d]; presence: [b, places].

        A presence of 1 leaves an event's attention weights as they are, 0 removes the event.
        """
        d = states.shape[-1]
        width = d // self.heads
        normed = self.attention_norm(states)
        query_gate = self.query_gate(normed)
        asking, kept = query_gate.view(-1, width), self.key_value(normed).view(-1, width)  # [n * 2 * heads, width]
        bias = self._bias(packing.longest).flip(1)  # [heads, places, places]
        mixed = []
        for group in packing.groups:
            shape, places = (*group.shape, width), group.shape[-1]
            q = asking.index_select(0, group.reads).view(shape)
            k = kept.index_select(0, group.reads).view(shape)
            v = kept.index_select(0, group.reads + self.heads).view(shape)
            scores = torch.add(bias[:, :places, :places], q @ k.transpose(-1, -2), alpha=1 / math.sqrt(width))
            if presence is not None:  # weights times presence, normalised again
                scores = scores + presence[group.rows, None, None, :places].log()
            mixed.append((torch.softmax(scores, dim=-1) @ v).view(-1, width).index_select(0, group.writes))
        attended = torch.cat(mixed).view(-1, d)
        states = states + self.out(attended * torch.sigmoid(query_gate[:, d:]))
        return states + self._feed(states)

    def newest(self, states: Tensor, packing: Packing, presence: Tensor | None) -> Tensor:
        """Like `packed`, for the last place of each history only, [b, d].

        Keys and values are linear in the states, so it is cheaper to project the query than every key, and the
        attended mixture of states than every value. The bias of the keys adds the same to all scores of a query, so it
        changes no attention weight and is left out.
        """
        batch, d = len(packing.order), states.shape[-1]
        width = d // self.heads
        normed = self.attention_norm(states)
        memory = normed.index_select(0, packing.padded).view(batch, -1, d)
        q, gate = self.query_gate(normed.index_select(0, packing.ends)).chunk(2, dim=-1)  # [b, d] each
        keys, values = self.key_value.weight.view(2, self.heads, width, d)
        asking = torch.einsum("bhw,hwd->bhd", q.view(batch, self.heads, width), keys)
        bias = self._bias(packing.longest)[:, packing.longest - packing.lengths].transpose(0, 1)
        scores = torch.add(bias, asking @ memory.transpose(1, 2), alpha=1 / math.sqrt(width))  # [b, heads, places]
        if presence is not None:
            scores = scores + presence.log().unsqueeze(1)
        mixture = torch.softmax(scores, dim=-1) @ memory  # [b, heads, d]
        attended = torch.einsum("bhd,hwd->bhw", mixture, values).reshape(batch, d) + self.key_value.bias[d:]
        states = states.index_select(0, packing.ends) + self.out(attended * torch.sigmoid(gate))
        return states + self._feed(states)

    def _feed(self, states: Tensor) -> Tensor:
        """The feed-forward layer without dropout, in halves and in place, since allocating large results is slow."""
        normed = self.feed_norm(states)
        (open_weight, wide_weight), (open_bias, wide_bias) = self.widen.weight.chunk(2), self.widen.bias.chunk(2)
        opened = functional.linear(normed, open_weight, open_bias)
        wide = functional.linear(normed, wide_weight, wide_bias)
        if states.requires_grad:
            return cast(Tensor, self.narrow(functional.silu(opened) * wide))
        return cast(Tensor, self.narrow(functional.silu(opened, inplace=True).mul_(wide)))

    def _bias(self, places: int) -> Tensor:
        """The distance bias on attention scores, [heads, places, places], last query first; -inf for later events."""
        far_first = self.distance[:, self.buckets[:places].flip(0)]
        ahead = far_first.new_full((self.heads, places - 1), -math.inf)
        return torch.cat([far_first, ahead], dim=1).unfold(1, places, 1)


def bucket(distances: Tensor) -> Tensor:
    """Buckets of distances, int64 of the same shape in [0, N_DISTANCES); negative distances fall into bucket 0."""
    exact = N_DISTANCES // 2
    near = distances.clamp(min=0)
    far = exact + (torch.log(near.clamp(min=1) / exact) / math.log(64) * exact).long()
    return torch.where(near < exact, near, far.clamp(max=N_DISTANCES - 1))


class Network(nn.Module):
    """Both towers, repeat consumption and the embeddings of event types: what scoring needs besides item vectors."""

    def __init__(self, content_width: int, config: DeepLearningConfig) -> None:
        super().__init__()
        self.items = ItemTower(content_width, config)
        self.users = UserTower(config)
        self.repeat_consumption = RepeatConsumption(config.dimensions, config.repeat_half_lives)
        self.types = nn.Parameter(torch.zeros(N_TYPES, config.dimensions), requires_grad=False)


def scores(users: Tensor, items: Tensor) -> Tensor:
    """Raw scores, [n_users, n_items], of user vectors [n_users, d + k] and items [n_items, d + k]."""
    return functional.linear(users, items)
