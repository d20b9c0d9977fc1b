"""What a fit of the collaborative family costs, with each of its methods and with a choice between them."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from training.models.collaborative.candidates import candidates_of, named_method
from training.models.collaborative.ease import DOUBLE_UP_TO, ENTRIES_AT_ONCE
from training.models.collaborative.methods import Method
from training.models.collaborative.selection import HALF_LIVES
from training.models.collaborative.transitions import CELLS, HALF_LIVES_READ
from training.models.held_out import QUERY_CELLS
from training.models.neighbours import neighbours_workload
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


SCORE_PASSES = 8
"""How often a choice reads and writes the scores of a query."""


def collaborative_workload(sizes: DataSizes, config: "CollaborativeConfig", refit: bool = False) -> Workload:
    """The cost of one fit: the item-to-item weights, the popularity prior and the vectors of `similar`.

    Which methods a choice will take is not known before; the two that cost most are counted. A refit takes what the
    fit has chosen.
    """
    found = _workload_of_methods(sizes, config, refit)
    matrices = 8.0 * (sizes.pairs + sizes.all_pairs)  # users by items, of histories and of all events
    return replace(found, peak_bytes=found.peak_bytes + matrices)


def _workload_of_methods(sizes: DataSizes, config: "CollaborativeConfig", refit: bool) -> Workload:
    """The workload without the memory of the matrices, which are held during the whole fit."""
    rest = Workload(sizes.items, LOOKUP * sizes.history_events) + item_vectors_workload(sizes, config.dimensions)
    if config.method != "auto":
        return method_workload(named_method(config, sizes.items), sizes, config) + rest
    candidates = candidates_of(config, sizes.items)
    by_name = {method.name: method_workload(method, sizes, config) for method in candidates}
    learned = sum(sorted(by_name.values(), key=lambda one: -one.seconds)[:2], Workload(0, 0.0))
    if refit:
        return learned + rest
    queries = min(sizes.users, config.held_out_users, QUERY_CELLS // max(1, sizes.items))
    candidate_costs = [method_workload(method, sizes, config) for method in candidates]
    scored = (
        queries
        * len(HALF_LIVES)
        * sum(one.scoring_seconds + SCORE_PASSES * sizes.items * PASS for one in candidate_costs)
    )
    spent = sum(one.seconds for one in candidate_costs) + scored
    return Workload(0, spent, max(one.peak_bytes for one in candidate_costs)) + learned + rest


def affordable(
    methods: Sequence[Method], sizes: DataSizes, config: "CollaborativeConfig", seconds: float
) -> list[Method]:
    """The first methods that take at most so many seconds of the reference processor together, but at least one."""
    spent = np.cumsum([method_workload(method, sizes, config).seconds for method in methods])
    return list(methods[: max(1, int(np.searchsorted(spent, seconds, side="right")))])


def method_workload(method: Method, sizes: DataSizes, config: "CollaborativeConfig") -> Workload:
    """The cost of the kernels of a method."""
    n = sizes.items
    if method.name == "neighbours":
        return neighbours_workload(sizes, config.neighbours)
    if method.name == "transitions":
        return _transitions(sizes, config.decay_half_lives if method.half_life is None else (method.half_life,))
    if n <= config.closed_form_items:
        return _ease(sizes, n, n if n <= config.dense_items else config.kept_weights)
    learned = _factorisation(sizes, config)
    return learned + _ease(sizes, min(config.head_items, n), config.kept_weights) if config.head_items else learned


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
        3.0 * width * n**2 + 12.0 * n * kept + 16.0 * min(sizes.all_pairs, ENTRIES_AT_ONCE),
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
