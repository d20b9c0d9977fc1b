"""Cross-entropy of many places against many candidates, computed for a slice of places at a time.

The logits of one step would be by far the largest array in memory: 6,400 places times 10,000 candidates are 256 MB,
and their gradient is as large again. Here the logits of each slice are turned into their gradient at once, so that only
one slice exists at any time (as in Cut Cross-Entropy, Wijmans et al., 2024).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SLICE = 2_048
"""Places of a slice: with 4,096 candidates its logits take 32 MB, about the size of a processor's cache."""


@dataclass(frozen=True)
class TrendLogits:
    """Recent popularity of the c candidates at m times; each place weighs the k values of its time."""

    values: Tensor  # [m, k, c]
    times: Tensor  # int64 [n] index of the time of each place


@dataclass(frozen=True)
class HistoryMask:
    """Candidates to leave out of the softmax of a place, because they are in its context."""

    items: Tensor  # int64 [b, l] candidates of the sequences; c where there is none
    rows: Tensor  # int64 [n] the sequence of each place
    places: Tensor  # int64 [n] context length: how many events of the sequence the place knows


@dataclass(frozen=True)
class HistoryBias:
    """A bias on the logits of the items of a place's own sequence."""

    items: Tensor  # int64 [b, l] candidates of the sequences; c where there is none
    rows: Tensor  # int64 [n] the sequence of each place
    values: Tensor  # [n, l], differentiable; summed where an item occurs more than once


def cross_entropy(
    users: Tensor,
    candidates: Tensor,
    targets: Tensor,
    trend_logits: TrendLogits | None = None,
    history_mask: HistoryMask | None = None,
    history_bias: HistoryBias | None = None,
    log_q: Tensor | None = None,
    low_precision: bool = False,
) -> Tensor:
    """Mean over n places of -log softmax at their target, a scalar; 0 without any place.

    Args:
        users: float32 [n, d], or [n, d + k] with trend logits: the last k numbers weigh the recent popularity.
        candidates: float32 [c, d].
        targets: int64 [n] in [0, c).
        trend_logits: adds the weighed recent popularity to the logits.
        history_mask: leaves candidates out of the softmax of a place, except its target.
        history_bias: adds to the logits of the items of a place's own sequence.
        log_q: [c], subtracted from the logits of every place (logQ correction of a sampled softmax).
        low_precision: multiply in bfloat16; exponentials and sums stay float32.
    """
    values = None if history_bias is None else history_bias.values
    loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        users, candidates, values, targets, trend_logits, history_mask, history_bias, log_q, low_precision
    )
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        candidates: Tensor,
        values: Tensor | None,
        targets: Tensor,
        trend_logits: TrendLogits | None,
        history_mask: HistoryMask | None,
        history_bias: HistoryBias | None,
        log_q: Tensor | None,
        low_precision: bool,
    ) -> Tensor:
        kind = torch.bfloat16 if low_precision else torch.float32
        n, (c, d) = len(users), candidates.shape
        items = candidates.new_zeros(c + 1, d, dtype=kind)  # row c stands for no candidate
        items[:c] = candidates
        transposed = items.T.contiguous()
        user_gradient, item_gradient = torch.zeros_like(users), candidates.new_zeros(c + 1, d)
        value_gradient = None if values is None else torch.empty_like(values)
        loss = users.new_zeros(())
        for start in range(0, n, SLICE):
            part = slice(start, min(start + SLICE, n))
            states, target = users[part, :d].to(kind), targets[part].unsqueeze(1)
            logits = states @ transposed  # [s, c + 1]
            if history_mask is not None:
                logits.scatter_(1, _masked(history_mask, part, target, c), -math.inf)
            logits[:, c] = -math.inf
            popularity = None
            if trend_logits is not None:
                logits, popularity = logits.float(), trend_logits.values[trend_logits.times[part]]  # [s, k, c]
                logits[:, :c] += torch.einsum("nk,nkc->nc", users[part, d:], popularity)
            if log_q is not None:
                logits = logits.float()
                logits[:, :c] -= log_q
            if history_bias is not None and values is not None:
                logits = logits.float().scatter_add_(1, history_bias.items[history_bias.rows[part]], values[part])
                logits[:, c] = -math.inf
            chances = torch.softmax(logits, dim=1, dtype=torch.float32)
            loss -= chances.gather(1, target).clamp_min(1e-30).log().sum()
            chances.scatter_add_(1, target, torch.full_like(target, -1, dtype=torch.float32))  # now the gradient
            if history_bias is not None and value_gradient is not None:
                value_gradient[part] = chances.gather(1, history_bias.items[history_bias.rows[part]])
            rounded = chances.to(kind)
            user_gradient[part, :d] = rounded @ items
            item_gradient += rounded.T @ states
            if popularity is not None:
                user_gradient[part, d:] = torch.einsum("nc,nkc->nk", chances[:, :c], popularity)
        mean = 1 / max(n, 1)
        found = [user_gradient * mean, item_gradient[:c] * mean]
        ctx.save_for_backward(*found, *(() if value_gradient is None else (value_gradient * mean,)))
        return loss * mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        users, candidates, *values = [saved * gradients[0] for saved in ctx.saved_tensors]
        return users, candidates, values[0] if values else None, None, None, None, None, None, None


def _masked(history_mask: HistoryMask, part: slice, target: Tensor, no_candidate: int) -> Tensor:
    """Candidates that each place of the slice knows, int64 [s, l], filled up with `no_candidate`."""
    items, places = history_mask.items[history_mask.rows[part]], history_mask.places[part].unsqueeze(1)
    known = torch.arange(items.shape[1], device=items.device) < places
    return torch.where(known & (items != target), items, no_candidate)
