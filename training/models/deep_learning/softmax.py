"""Cross-entropy of places against many candidates, a slice of places at a time.

The logits of one step would be the largest thing in memory by far: 6,400 places times 10,000 candidates are 256 MB,
and as much again for their gradient. Here each slice's logits turn into their gradient at once, so that one slice is
all that ever exists (as in Cut Cross-Entropy, Wijmans et al., 2024).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SLICE = 2_048
"""Places at once: with 4,096 candidates 32 MB, about what a processor keeps near."""


@dataclass(frozen=True)
class Movement:
    """Trends of the candidates at the moments of the places."""

    values: Tensor  # [m, k, c]
    moments: Tensor  # int64 [n]


@dataclass(frozen=True)
class Past:
    """What each place has seen, which it is not asked to tell from what it has not."""

    items: Tensor  # int64 [b, l] candidates of the sequences; c where there is none
    rows: Tensor  # int64 [n] the sequence of each place
    places: Tensor  # int64 [n] how many events of the sequence are the past


@dataclass(frozen=True)
class Own:
    """What is added to the logits of the items of a place's own sequence."""

    items: Tensor  # int64 [b, l] candidates of the sequences; c where there is none
    rows: Tensor  # int64 [n] the sequence of each place
    values: Tensor  # [n, l], has a gradient; summed where an item is there more than once


def cross_entropy(
    users: Tensor,
    candidates: Tensor,
    targets: Tensor,
    movement: Movement | None = None,
    past: Past | None = None,
    own: Own | None = None,
    log_chance: Tensor | None = None,
    low_precision: bool = False,
) -> Tensor:
    """Mean over n places of -log softmax at their target, a scalar; 0 without any.

    Args:
        users: float32 [n, d], or [n, d + k] where items move: the last k weigh their trends.
        candidates: float32 [c, d].
        targets: int64 [n] in [0, c).
        movement: adds the weighed trends to the logits.
        past: takes these candidates out of the softmax of a place, its target excepted.
        own: adds to the logits of the items of a place's own sequence.
        log_chance: [c], is taken off the logits of every place.
        low_precision: multiply in bfloat16; exponentials and sums stay float32.
    """
    values = None if own is None else own.values
    loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        users, candidates, values, targets, movement, past, own, log_chance, low_precision
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
        movement: Movement | None,
        past: Past | None,
        own: Own | None,
        log_chance: Tensor | None,
        low_precision: bool,
    ) -> Tensor:
        kind = torch.bfloat16 if low_precision else torch.float32
        n, (c, d) = len(users), candidates.shape
        items = candidates.new_zeros(c + 1, d, dtype=kind)  # the last one takes what is masked and is none of them
        items[:c] = candidates
        across = items.T.contiguous()
        user_gradient, item_gradient = torch.zeros_like(users), candidates.new_zeros(c + 1, d)
        value_gradient = None if values is None else torch.empty_like(values)
        loss = users.new_zeros(())
        for start in range(0, n, SLICE):
            part = slice(start, min(start + SLICE, n))
            asked, target = users[part, :d].to(kind), targets[part].unsqueeze(1)
            logits = asked @ across  # [s, c + 1]
            if past is not None:
                logits.scatter_(1, _masked(past, part, target, c), -math.inf)
            logits[:, c] = -math.inf
            pull = None
            if movement is not None:
                logits, pull = logits.float(), movement.values[movement.moments[part]]  # [s, k, c]
                logits[:, :c] += torch.einsum("nk,nkc->nc", users[part, d:], pull)
            if log_chance is not None:
                logits = logits.float()
                logits[:, :c] -= log_chance
            if own is not None and values is not None:
                logits = logits.float().scatter_add_(1, own.items[own.rows[part]], values[part])
                logits[:, c] = -math.inf
            chances = torch.softmax(logits, dim=1, dtype=torch.float32)
            loss -= chances.gather(1, target).clamp_min(1e-30).log().sum()
            chances.scatter_add_(1, target, torch.full_like(target, -1, dtype=torch.float32))  # now the gradient
            if own is not None and value_gradient is not None:
                value_gradient[part] = chances.gather(1, own.items[own.rows[part]])
            rounded = chances.to(kind)
            user_gradient[part, :d] = rounded @ items
            item_gradient += rounded.T @ asked
            if pull is not None:
                user_gradient[part, d:] = torch.einsum("nc,nkc->nk", chances[:, :c], pull)
        mean = 1 / max(n, 1)
        found = [user_gradient * mean, item_gradient[:c] * mean]
        ctx.save_for_backward(*found, *(() if value_gradient is None else (value_gradient * mean,)))
        return loss * mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        users, candidates, *values = [saved * gradients[0] for saved in ctx.saved_tensors]
        return users, candidates, values[0] if values else None, None, None, None, None, None, None


def _masked(past: Past, part: slice, target: Tensor, nowhere: int) -> Tensor:
    """Candidates each place of the slice has seen, int64 [s, l]; `nowhere` fills up."""
    items, places = past.items[past.rows[part]], past.places[part].unsqueeze(1)
    seen = torch.arange(items.shape[1], device=items.device) < places
    return torch.where(seen & (items != target), items, nowhere)
