"""The layers of the user tower in NumPy, with their gradients written by hand. `inference` builds the tower of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from training.models.deep_learning.attention import sigmoid_of_negated
from training.models.deep_learning.network import Block

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class AffineLayer:
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
class ScaledStates:
    """States with variance 1. The gain and the bias of their norm are part of the next product."""

    values: Floats  # [n, d]
    scale: Floats  # [n, 1] one over the standard deviation

    @classmethod
    def of(cls, states: Floats, epsilon: float) -> "ScaledStates":
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
class FeedForwardPass:
    """One pass of a feed-forward layer."""

    scaled: ScaledStates
    wide: Floats  # [n, hidden]
    gate: Floats  # [n, hidden]
    negated: Floats  # [n, hidden] minus the SiLU


class FeedForwardLayer:
    """y + narrow(silu(opened) * wide). `opened` is computed with its sign reversed, as its sigmoid needs it."""

    def __init__(self, block: Block) -> None:
        self.epsilon = block.feed_norm.eps
        weight, bias = with_norm(block.widen, block.feed_norm)
        hidden = len(bias) // 2
        self.open = AffineLayer(-weight[:, :hidden], -bias[:hidden])
        self.widen = AffineLayer(weight[:, hidden:], bias[hidden:])
        weight, bias = centred(block.narrow)
        self.narrow = AffineLayer(-weight, bias)
        self.backwards: Floats = np.concatenate([self.open.backwards, self.widen.backwards])
        self.hidden = hidden

    def forward(self, states: Floats) -> tuple[Floats, FeedForwardPass]:
        scaled = ScaledStates.of(states, self.epsilon)
        negated, wide = self.open(scaled.values), self.widen(scaled.values)
        gate = sigmoid_of_negated(negated)
        negated *= gate
        outputs = self.narrow(negated * wide)
        outputs += states
        return outputs, FeedForwardPass(scaled, wide, gate, negated)

    def backward(self, gradients: Floats, fed: FeedForwardPass) -> Floats:
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


def in_float64(tensor: Tensor) -> Doubles:
    """A parameter as an array of its own, without its gradient."""
    return tensor.detach().double().numpy()


def with_norm(linear: nn.Linear, norm: nn.LayerNorm) -> tuple[Doubles, Doubles]:
    """Weight [inputs, outputs] and bias of a layer whose input is scaled states, with the norm's gain and bias."""
    weight = in_float64(linear.weight).T
    return in_float64(norm.weight)[:, None] * weight, in_float64(norm.bias) @ weight + in_float64(linear.bias)


def centred(linear: nn.Linear) -> tuple[Doubles, Doubles]:
    """Weight [inputs, outputs] and bias of a layer that adds to states, without what changes their mean."""
    weight, bias = in_float64(linear.weight).T, in_float64(linear.bias)
    return weight - weight.mean(axis=1, keepdims=True), bias - bias.mean()
