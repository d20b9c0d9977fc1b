"""What a fit of the collaborative family costs, in each of its three forms."""

from math import ceil
from typing import TYPE_CHECKING

from training.models.collaborative.ease import DOUBLE_UP_TO
from training.models.collaborative.transitions import CELLS, HALF_LIVES_READ
from training.models.workload import (
    LOOKUP,
    PASS,
    PRODUCT,
    SPARSE_DENSE,
    SPARSE_SPARSE,
    DataSizes,
    Workload,
    item_vectors_workload,
)

if TYPE_CHECKING:
    from training.models.collaborative.model import CollaborativeConfig


def collaborative_workload(sizes: DataSizes, config: "CollaborativeConfig") -> Workload:
    """The cost of one fit: the item-to-item weights, the popularity prior and the vectors of `similar`."""
    n = sizes.items
    if config.decay_half_lives and n * len(config.decay_half_lives) <= config.transition_items:
        learned = _transitions(sizes, config.decay_half_lives)
    elif n <= config.closed_form_items:
        learned = _ease(sizes, n, n if n <= config.dense_items else config.kept_weights)
    else:
        learned = _factorisation(sizes, config)
        if config.head_items:
            learned += _ease(sizes, min(config.head_items, n), config.kept_weights)
    prior = Workload(n, LOOKUP * sizes.history_events)
    return learned + prior + item_vectors_workload(sizes, config.dimensions)


def _solving(size: int, right: int) -> float:
    """Seconds of a Cholesky solution with this many right-hand sides, in double precision where it is small."""
    return (size**3 / 6 + size**2 * right) * PRODUCT * (2 if size <= DOUBLE_UP_TO else 1)


def _transitions(sizes: DataSizes, half_lives: tuple[float, ...]) -> Workload:
    """Each entry of a decayed history is made once and multiplied with the next event and with every history."""
    n, count = sizes.items, len(half_lives)
    size, width = n * count, 8 if n * count <= DOUBLE_UP_TO else 4
    read = [sizes.events * min(ceil(HALF_LIVES_READ * each), sizes.earlier_events) for each in half_lives]
    held = [min(each, CELLS) for each in read]
    return Workload(
        size * n,
        _solving(size, n) + sum(read) * (5 * LOOKUP + (1 + count) * SPARSE_SPARSE) + size * (size + n) * PASS,
        width * (size**2 + 2.0 * size * n) + 4.0 * size * n + 44.0 * max(held) + 12.0 * sum(held),
        scoring_seconds=count * sizes.history_length * n * SPARSE_DENSE,
    )


def _ease(sizes: DataSizes, n: int, kept: int) -> Workload:
    """The Gram matrix of the n most chosen items, its inverse, and the weights that are kept of it."""
    width, kept = 8 if n <= DOUBLE_UP_TO else 4, min(kept, n)
    inverse = n**3 / 2 * PRODUCT * width / 4
    return Workload(
        n * kept,
        inverse + sizes.all_co_pairs * SPARSE_SPARSE + 10.0 * n**2 * PASS,
        3.0 * width * n**2 + 12.0 * n * kept,
        scoring_seconds=sizes.history_length * kept * SPARSE_DENSE + n * PASS,
    )


def _factorisation(sizes: DataSizes, config: "CollaborativeConfig") -> Workload:
    """Alternating least squares: three steps of conjugate gradients on both sides of each entry, an iteration."""
    width = min(config.factors, sizes.users, sizes.items)
    both = sizes.users + sizes.items
    return Workload(
        2 * sizes.items * width,
        config.iterations * 8 * width * (sizes.all_pairs * SPARSE_DENSE + both * width * PRODUCT),
        12.0 * both * width + 24.0 * sizes.all_pairs,
        scoring_seconds=sizes.items * width * PRODUCT + sizes.items * PASS,
    )
