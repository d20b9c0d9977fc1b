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
from torch import Tensor, nn

from training.models.contract import FloatMatrix
from training.models.deep_learning.attention import (
    Places,
    attend,
    segment_softmax,
    sigmoid_of_negated,
)
from training.models.deep_learning.network import Block, UserTower

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class _Affine:
    """x @ weight + bias in float32, from float64."""

    def __init__(self, weight: Doubles, bias: Doubles) -> None:
        """weight: [inputs, outputs]; bias: [outputs]."""
        self.weight: Floats = np.ascontiguousarray(weight, dtype=np.float32)
        self.backwards: Floats = np.ascontiguousarray(self.weight.T)
        self.bias: Floats = bias.astype(np.float32)

    def __call__(self, inputs: Floats) -> Floats:
        outputs: Floats = np.matmul(inputs, self.weight)
        outputs += self.bias
        return outputs

    def backward(self, gradients: Floats) -> Floats:
        """[r, n, outputs] to [r, n, inputs], as one product."""
        r, n, outputs = gradients.shape
        found: Floats = np.matmul(gradients.reshape(r * n, outputs), self.backwards)
        return found.reshape(r, n, -1)


@dataclass(frozen=True)
class _Scaled:
    """States with variance 1. The gain and the bias of their norm are part of the next product."""

    values: Floats  # [n, d]
    scale: Floats  # [n, 1] one over the standard deviation

    @classmethod
    def of(cls, states: Floats, epsilon: float) -> "_Scaled":
        """states: [n, d] with a mean of zero."""
        variance = np.einsum("nd,nd->n", states, states)[:, None]
        variance *= np.float32(1 / states.shape[1])
        variance += np.float32(epsilon)
        scale: Floats = np.reciprocal(np.sqrt(variance))
        return cls(states * scale, scale)

    def backward(self, gradients: Floats) -> Floats:
        """Gradients on the states, [r, n, d], but for their mean over d, from those on the values. In place."""
        along = np.einsum("rnd,nd->rn", gradients, self.values)
        along *= np.float32(1 / gradients.shape[2])
        gradients -= along[:, :, None] * self.values
        gradients *= self.scale
        return gradients


@dataclass(frozen=True)
class _Fed:
    """One pass of a feed-forward layer."""

    scaled: _Scaled
    wide: Floats  # [n, hidden]
    gate: Floats  # [n, hidden]
    negated: Floats  # [n, hidden] minus the SiLU


class _FeedForward:
    """y + narrow(silu(opened) * wide). `opened` is computed with its sign reversed, as its sigmoid needs it."""

    def __init__(self, block: Block) -> None:
        self.epsilon = block.feed_norm.eps
        weight, bias = _with_norm(block.widen, block.feed_norm)
        hidden = len(bias) // 2
        self.open = _Affine(-weight[:, :hidden], -bias[:hidden])
        self.widen = _Affine(weight[:, hidden:], bias[hidden:])
        weight, bias = _centred(block.narrow)
        self.narrow = _Affine(-weight, bias)
        self.backwards: Floats = np.concatenate([self.open.backwards, self.widen.backwards])
        self.hidden = hidden

    def forward(self, states: Floats) -> tuple[Floats, _Fed]:
        scaled = _Scaled.of(states, self.epsilon)
        negated, wide = self.open(scaled.values), self.widen(scaled.values)
        gate = sigmoid_of_negated(negated)
        negated *= gate
        outputs = self.narrow(negated * wide)
        outputs += states
        return outputs, _Fed(scaled, wide, gate, negated)

    def backward(self, gradients: Floats, fed: _Fed) -> Floats:
        """Gradients on the states, [r, n, d], from those on the outputs."""
        slope = fed.negated * fed.gate  # the derivative of the negated SiLU by the negated input
        slope -= fed.negated
        slope += fed.gate
        slope *= fed.wide
        product = self.narrow.backward(gradients)
        r, n, hidden = product.shape
        both = np.empty((r, n, 2 * hidden), dtype=np.float32)
        np.multiply(product, slope, out=both[:, :, :hidden])
        np.multiply(product, fed.negated, out=both[:, :, hidden:])
        found: Floats = np.matmul(both.reshape(r * n, 2 * hidden), self.backwards).reshape(r, n, -1)
        found = fed.scaled.backward(found)
        found += gradients
        return found


@dataclass(frozen=True)
class _Attended:
    """One pass of a block over all places."""

    scaled: _Scaled
    projected: Floats  # [N, 4 d] queries (scaled), gates before their sigmoid (negated), keys, values
    weights: list[Floats]  # of each history [heads, n, n]
    mixed: Floats  # [N, d] what each place attends to
    gate: Floats  # [N, d]
    fed: _Fed


@dataclass(frozen=True)
class _Newest:
    """One pass of the last block, which computes the last place of each history only."""

    scaled: _Scaled  # of all places
    asking: Floats  # [b, heads, d] the queries in the space of scaled states
    weights: Floats  # [heads, N]
    mixed: Floats  # [b, d]
    gate: Floats  # [b, d]
    fed: _Fed


class _Block:
    """One transformer block; see `network.Block` for what it computes."""

    def __init__(self, block: Block) -> None:
        self.heads, self.epsilon = block.heads, block.attention_norm.eps
        d = block.out.weight.shape[0]
        self.width = d // self.heads
        weight, bias = _with_norm(block.query_gate, block.attention_norm)
        signs = np.ones(2 * d)
        signs[:d], signs[d:] = 1 / np.sqrt(self.width), -1.0  # queries include the scale of attention
        weight, bias = weight * signs, bias * signs
        kept_weight, kept_bias = _with_norm(block.key_value, block.attention_norm)
        self.query_gate = _Affine(weight, bias)
        self.project = _Affine(np.hstack([weight, kept_weight]), np.concatenate([bias, kept_bias]))
        # For the last place: queries and mixtures are projected instead of keys and values (`network.Block.newest`).
        per_head = kept_weight.T.reshape(2, self.heads, self.width, d).astype(np.float32)
        self.keys, self.values = (np.ascontiguousarray(half) for half in per_head)  # [heads, width, d] each
        self.value_bias: Floats = kept_bias[d:].reshape(self.heads, 1, self.width).astype(np.float32)
        self.out = _Affine(*_centred(block.out))
        self.feed = _FeedForward(block)
        self.by_distance: Floats = block.distance.detach().numpy()[:, block.buckets.numpy()]  # [heads, places]
        at = np.arange(self.by_distance.shape[1])
        distances = at[:, None] - at
        bias_of = self.by_distance[:, np.maximum(distances, 0)]
        self.bias: Floats = np.where(distances >= 0, bias_of, -np.inf).astype(np.float32)  # [heads, places, places]

    def forward(self, states: Floats, places: Places) -> tuple[Floats, _Attended]:
        """The states after this block. states: [N, d]."""
        d = states.shape[1]
        scaled = _Scaled.of(states, self.epsilon)
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
        scaled = _Scaled.of(states, self.epsilon)
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
    final: _Scaled  # of the last states


class HistoryEncoder:
    """The user tower of one fitted network, with its weights as NumPy arrays. Safe for concurrent threads."""

    def __init__(self, tower: UserTower, type_vectors: Tensor) -> None:
        self._start: Floats = tower.start.detach().numpy()
        self._strength: Floats = tower.strength.detach().numpy()
        self._types: Floats = type_vectors.detach().numpy()
        self._blocks = [_Block(cast(Block, block)) for block in tower.blocks]
        self._epsilon = tower.norm.eps
        popularity = _doubles(tower.popularity_weights.weight)
        d = len(self._start)
        gain, shift = _doubles(tower.norm.weight), _doubles(tower.norm.bias)
        finish = np.concatenate([np.eye(d), popularity]).T  # the vector itself, and what weighs recent popularity
        bias = np.concatenate([np.zeros(d), _doubles(tower.popularity_weights.bias)])
        self._finish = _Affine(gain[:, None] * finish, shift @ finish + bias)

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
        final = _Scaled.of(newest, self._epsilon)
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


def _doubles(tensor: Tensor) -> Doubles:
    return tensor.detach().double().numpy()


def _with_norm(linear: nn.Linear, norm: nn.LayerNorm) -> tuple[Doubles, Doubles]:
    """Weight [inputs, outputs] and bias of a layer whose input is scaled states, with the norm's gain and bias."""
    weight = _doubles(linear.weight).T
    return _doubles(norm.weight)[:, None] * weight, _doubles(norm.bias) @ weight + _doubles(linear.bias)


def _centred(linear: nn.Linear) -> tuple[Doubles, Doubles]:
    """Weight [inputs, outputs] and bias of a layer that adds to states, without what changes their mean."""
    weight, bias = _doubles(linear.weight).T, _doubles(linear.bias)
    return weight - weight.mean(axis=1, keepdims=True), bias - bias.mean()
