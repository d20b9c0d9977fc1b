"""The user tower for a few histories in NumPy: their vectors, and the gradients that explain them.

`network` computes the same in torch, for training and on any device. A request has one history of at most a hundred
events, for which torch spends more time in its dispatcher and its autograd than in arithmetic. The tests compare both.

Histories lie end to end without padding: N places of b histories, and attention runs within each. Every state is read
through a layer norm, which ignores its mean. So all states have a mean of zero here: the weights that write states are
centred once, and no norm has to subtract a mean.

The gradients are written out by hand. The presence of an event enters the attention of each block and nothing else,
and it is 1. So queries, keys, values and gates of the first block do not depend on it, and a backward pass ends at the
attention weights of that block.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from training.models.contract import FloatMatrix
from training.models.deep_learning.attention import (
    Places,
    attend,
    segment_softmax,
    sigmoid_of_negated,
)
from training.models.deep_learning.layers import (
    AffineLayer,
    FeedForwardLayer,
    FeedForwardPass,
    Floats,
    ScaledStates,
    centred,
    in_float64,
    with_norm,
)
from training.models.deep_learning.network import Block, UserTower


@dataclass(frozen=True)
class _Attended:
    """One pass of a block over all places."""

    scaled: ScaledStates
    projected: Floats  # [N, 4 d] queries (scaled), gates before their sigmoid (negated), keys, values
    weights: list[Floats]  # of each history [heads, n, n]
    mixed: Floats  # [N, d] what each place attends to
    gate: Floats  # [N, d]
    fed: FeedForwardPass


@dataclass(frozen=True)
class _Newest:
    """One pass of the last block, which computes the last place of each history only."""

    scaled: ScaledStates  # of all places
    asking: Floats  # [b, heads, d] the queries in the space of scaled states
    weights: Floats  # [heads, N]
    mixed: Floats  # [b, d]
    gate: Floats  # [b, d]
    fed: FeedForwardPass


class _Block:
    """One transformer block; see `network.Block` for what it computes."""

    def __init__(self, block: Block) -> None:
        self.heads, self.epsilon = block.heads, block.attention_norm.eps
        d = block.out.weight.shape[0]
        self.width = d // self.heads
        weight, bias = with_norm(block.query_gate, block.attention_norm)
        signs = np.ones(2 * d)
        signs[:d], signs[d:] = 1 / np.sqrt(self.width), -1.0  # queries include the scale of attention
        weight, bias = weight * signs, bias * signs
        kept_weight, kept_bias = with_norm(block.key_value, block.attention_norm)
        self.query_gate = AffineLayer(weight, bias)
        self.project = AffineLayer(np.hstack([weight, kept_weight]), np.concatenate([bias, kept_bias]))
        # For the last place: queries and mixtures are projected instead of keys and values (`network.Block.newest`).
        per_head = kept_weight.T.reshape(2, self.heads, self.width, d).astype(np.float32)
        self.keys, self.values = (np.ascontiguousarray(half) for half in per_head)  # [heads, width, d] each
        self.value_bias: Floats = kept_bias[d:].reshape(self.heads, 1, self.width).astype(np.float32)
        self.out = AffineLayer(*centred(block.out))
        self.feed = FeedForwardLayer(block)
        self.by_distance: Floats = block.distance.detach().numpy()[:, block.buckets.numpy()]  # [heads, places]
        at = np.arange(self.by_distance.shape[1])
        distances = at[:, None] - at
        bias_of = self.by_distance[:, np.maximum(distances, 0)]
        self.bias: Floats = np.where(distances >= 0, bias_of, -np.inf).astype(np.float32)  # [heads, places, places]

    def forward(self, states: Floats, places: Places) -> tuple[Floats, _Attended]:
        """The states after this block. states: [N, d]."""
        d = states.shape[1]
        scaled = ScaledStates.of(states, self.epsilon)
        projected = self.project(scaled.values)
        q, k, v = (self._heads(projected[:, start : start + d]) for start in (0, 2 * d, 3 * d))
        mixed = np.empty_like(states)
        weights = attend(q, k, v, self.bias, places, self._heads(mixed))
        gate = sigmoid_of_negated(projected[:, d : 2 * d])
        attended = self.out(mixed * gate)
        attended += states
        outputs, fed = self.feed.forward(attended)
        return outputs, _Attended(scaled, projected, weights, mixed, gate, fed)

    def backward(self, gradients: Floats, kept: _Attended, places: Places, presence: Floats, first: bool) -> Floats:
        """Add the gradients on presence to `presence` [r, N]; return those on the states, [r, N, d].

        gradients: [r, N, d] on the outputs. first: nothing before this block depends on presence; returns them as zero.
        """
        r, n, d = gradients.shape
        gradients = self.feed.backward(gradients, kept.fed)
        gated = self.out.backward(gradients)
        mixed = gated * kept.gate
        q, k, v = (self._heads(kept.projected[:, start : start + d]) for start in (0, 2 * d, 3 * d))
        by_head = mixed.reshape(r, n, self.heads, self.width).transpose(0, 2, 1, 3)  # [r, heads, N, width]
        # The weights of a place sum to 1: presence raises a weight by itself times what is left.
        shares = np.einsum("rnhw,nhw->rhn", mixed.reshape(r, n, self.heads, -1), kept.mixed.reshape(n, self.heads, -1))
        on_values = np.empty((r, self.heads, n, self.width), dtype=np.float32)
        taken = np.empty((self.heads, r, n), dtype=np.float32)
        by_share = shares.transpose(1, 0, 2)
        for (start, end), weights in zip(places.spans, kept.weights, strict=True):
            np.matmul(weights.transpose(0, 2, 1), by_head[:, :, start:end], out=on_values[:, :, start:end])
            np.matmul(by_share[:, :, start:end], weights, out=taken[:, :, start:end])
        presence += np.einsum("rhnw,hnw->rn", on_values, v)
        presence -= np.add.reduce(taken, axis=0)
        if first:
            return np.zeros_like(gradients)
        on_projected = np.empty((r, n, 4 * d), dtype=np.float32)
        on_q, on_k, on_v = (
            on_projected[:, :, start : start + d].reshape(r, n, self.heads, self.width).transpose(0, 2, 1, 3)
            for start in (0, 2 * d, 3 * d)
        )
        for (start, end), weights in zip(places.spans, kept.weights, strict=True):
            on_scores = np.matmul(by_head[:, :, start:end], v[:, start:end].transpose(0, 2, 1))  # [r, heads, n, n]
            on_scores -= shares[:, :, start:end, None]
            on_scores *= weights
            on_q[:, :, start:end] = np.matmul(on_scores, k[:, start:end])
            on_k[:, :, start:end] = np.matmul(on_scores.transpose(0, 1, 3, 2), q[:, start:end])
        on_v[:] = on_values
        on_projected[:, :, d : 2 * d] = gated * (kept.mixed * kept.gate * (kept.gate - 1))
        found = kept.scaled.backward(self.project.backward(on_projected))
        found += gradients
        return found

    def newest(self, states: Floats, places: Places) -> tuple[Floats, _Newest]:
        """The state of the last place of each history after this block, [b, d]. states: [N, d]."""
        b, d = len(places.spans), states.shape[1]
        scaled = ScaledStates.of(states, self.epsilon)
        query_gate = self.query_gate(scaled.values[places.ends])
        asking = np.matmul(query_gate[:, :d].reshape(b, self.heads, 1, self.width), self.keys)[:, :, 0]
        weights = np.empty((self.heads, len(states)), dtype=np.float32)
        mixture = np.empty((b, self.heads, d), dtype=np.float32)
        for row, (start, end) in enumerate(places.spans):
            np.matmul(asking[row], scaled.values[start:end].T, out=weights[:, start:end])
        weights += self.by_distance[:, places.ages]
        segment_softmax(weights, places)
        for row, (start, end) in enumerate(places.spans):
            np.matmul(weights[:, start:end], scaled.values[start:end], out=mixture[row])
        by_head = np.matmul(mixture[:, :, None], self.values.transpose(0, 2, 1))
        mixed = (by_head + self.value_bias).reshape(b, d)
        gate = sigmoid_of_negated(query_gate[:, d:])
        attended = self.out(mixed * gate)
        attended += states[places.ends]
        outputs, fed = self.feed.forward(attended)
        return outputs, _Newest(scaled, asking, weights, mixed, gate, fed)

    def newest_backward(
        self, gradients: Floats, kept: _Newest, places: Places, presence: Floats, first: bool
    ) -> Floats:
        """As `backward`, for the last places. gradients: [r, b, d] on their states."""
        r, b, d = gradients.shape
        heads, values = self.heads, kept.scaled.values
        n = len(values)
        gradients = self.feed.backward(gradients, kept.fed)
        gated = self.out.backward(gradients)
        by_head = (gated * kept.gate).reshape(r, b, heads, 1, self.width)
        shares = np.empty((r, 2 * heads, n), dtype=np.float32)  # weights, then gradients on the scores
        sources = np.empty((r, b, 2 * heads, d), dtype=np.float32)  # what each of them brings to a state
        on_mixture = sources[:, :, :heads]
        np.matmul(by_head, self.values, out=on_mixture[:, :, :, None])
        shares[:, :heads], sources[:, :, heads:] = kept.weights, kept.asking
        on_scores = shares[:, heads:]
        for row, (start, end) in enumerate(places.spans):
            np.matmul(on_mixture[:, row], values[start:end].T, out=on_scores[:, :, start:end])
        means = np.add.reduceat(on_scores * kept.weights, places.starts, axis=2)  # [r, heads, b]
        on_scores -= np.repeat(means, places.lengths, axis=2)
        on_scores *= kept.weights
        presence += np.add.reduce(on_scores, axis=1)
        if first:
            return np.zeros((r, n, d), dtype=np.float32)
        on_values = np.empty((r, n, d), dtype=np.float32)
        on_asking = np.empty((r, b, heads, d), dtype=np.float32)
        for row, (start, end) in enumerate(places.spans):
            np.matmul(shares[:, :, start:end].transpose(0, 2, 1), sources[:, row], out=on_values[:, start:end])
            np.matmul(on_scores[:, :, start:end], values[start:end], out=on_asking[:, row])
        on_query_gate = np.empty((r, b, 2 * d), dtype=np.float32)
        on_query = np.matmul(on_asking[:, :, :, None], self.keys.transpose(0, 2, 1))  # [r, b, heads, 1, width]
        on_query_gate[:, :, :d] = on_query.reshape(r, b, d)
        on_query_gate[:, :, d:] = gated * (kept.mixed * kept.gate * (kept.gate - 1))
        on_values[:, places.ends] += self.query_gate.backward(on_query_gate)
        found = kept.scaled.backward(on_values)
        found[:, places.ends] += gradients
        return found

    def _heads(self, states: Floats) -> Floats:
        """A view of [n, d] states by head, [heads, n, width]."""
        return states.reshape(len(states), self.heads, self.width).transpose(1, 0, 2)


@dataclass(frozen=True)
class EncodedHistories:
    """b histories after the user tower, and what a backward pass reads again (6 kB a place with 64 dimensions)."""

    vectors: Floats  # [b, d + k]
    places: Places
    blocks: list[_Attended]  # of all blocks but the last
    last: _Newest
    final: ScaledStates  # of the last states


class HistoryEncoder:
    """The user tower of one fitted network, with its weights as NumPy arrays. Safe for concurrent threads."""

    def __init__(self, tower: UserTower, type_vectors: Tensor) -> None:
        self._start: Floats = tower.start.detach().numpy()
        self._strength: Floats = tower.strength.detach().numpy()
        self._types: Floats = type_vectors.detach().numpy()
        self._blocks = [_Block(cast(Block, block)) for block in tower.blocks]
        self._epsilon = tower.norm.eps
        popularity = in_float64(tower.popularity_weights.weight)
        d = len(self._start)
        gain, shift = in_float64(tower.norm.weight), in_float64(tower.norm.bias)
        finish = np.concatenate([np.eye(d), popularity]).T  # the vector itself, and what weighs recent popularity
        bias = np.concatenate([np.zeros(d), in_float64(tower.popularity_weights.bias)])
        self._finish = AffineLayer(gain[:, None] * finish, shift @ finish + bias)

    def encode(
        self, items: Floats, types: npt.NDArray[np.int8], weights: Floats, lengths: npt.NDArray[np.int64]
    ) -> EncodedHistories:
        """Encode b > 0 histories.

        Args:
            items: float32 [n, d], the vectors of the items of all events, history by history, oldest first.
            types, weights: [n], of the same events.
            lengths: int64 [b], the events of each history, at most as many as the tower reads.
        """
        places = Places.of(lengths)
        states = np.empty((len(places.ages), items.shape[1]), dtype=np.float32)
        states[places.starts] = self._start
        states[places.events] = items + self._types[types] + weights[:, None] * self._strength
        states -= np.matmul(states, np.full((states.shape[1], 1), 1 / states.shape[1], dtype=np.float32))
        *before, last = self._blocks
        kept = []
        with np.errstate(over="ignore"):  # exp of a large number is infinite, and the gate then 0
            for block in before:
                states, one = block.forward(states, places)
                kept.append(one)
            newest, of_last = last.newest(states, places)
        final = ScaledStates.of(newest, self._epsilon)
        return EncodedHistories(self._finish(final.values), places, kept, of_last, final)

    def presence_gradients(self, encoded: EncodedHistories, wanted: Floats) -> FloatMatrix:
        """d (wanted[r, row] . vector of row) / d presence of each of the n events, float32 [r, n].

        wanted: float32 [r, b, d + k].
        """
        places = encoded.places
        presence = np.zeros((len(wanted), len(places.ages)), dtype=np.float32)
        gradients = encoded.final.backward(self._finish.backward(wanted))
        *before, last = self._blocks
        gradients = last.newest_backward(gradients, encoded.last, places, presence, first=not before)
        for place in range(len(before) - 1, -1, -1):
            gradients = before[place].backward(gradients, encoded.blocks[place], places, presence, first=place == 0)
        return presence[:, places.events]


def main_directions(vectors: FloatMatrix, most: int) -> tuple[FloatMatrix, FloatMatrix]:
    """The `most` main directions of k vectors: main [..., k, most] and along [..., most, d].

    The vectors are nearly main @ along. At most `most` vectors are returned as they are. vectors: float32 [..., k, d].
    """
    k = vectors.shape[-2]
    if k <= most:
        return np.broadcast_to(np.eye(k, dtype=np.float32), (*vectors.shape[:-2], k, k)), vectors
    _, axes = np.linalg.eigh(np.matmul(vectors, np.swapaxes(vectors, -1, -2)))  # ascending
    main = axes[..., -most:]
    return main, np.matmul(np.swapaxes(main, -1, -2), vectors)
