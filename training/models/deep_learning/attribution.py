"""Which events of a history a score depends on, by the gradient of the score with respect to each event's presence.

The presence of an event multiplies its weight in every attention, and the weights are then normalised again. At a
presence of 1 the gradient is therefore, to first order, what the score would lose without the event. The usual choice,
gradient x input of the event vectors, agrees with leaving the event out in about 73 % of cases on MovieLens 100k;
presence agrees in 97 to 99 %. `measure_fidelity` measures this agreement for each fitted model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from feature_store.online import Histories
from training.models.contract import FloatMatrix, Positions
from training.models.deep_learning.network import UserTower
from training.models.deep_learning.user_vectors import user_vectors
from training.models.lists import Contributions, ListContributions

FloatVector = npt.NDArray[np.float32]

REQUIRED_AGREEMENT = 0.95
"""A model explains nothing unless leaving the evidence out lowers the score in this share of a held-out sample."""

MAX_DIRECTIONS = 4
"""Backward passes for one ranked list. The vectors of its items are much alike, so the gradients of ten items are
computed from the four main directions of their vectors: occlusion confirms 96.8 % of the contributions instead of
96.9 %, at 0.4 of the time (MovieLens 100k). A list of up to four items is explained exactly."""

_TARGET_AGREEMENT = 0.98  # stricter than required, since the other half of the sample judges the threshold
_MIN_PAIRS = 20
_EVIDENCE = 3  # history items that an explanation names at most


@dataclass(frozen=True)
class Fidelity:
    """How well the contributions of a model agree with occlusion. Contributions below `threshold` are dropped."""

    threshold: float | None  # in units of the raw score; None: the model explains nothing
    agreement: float | None  # share of contributions above it that occlusion confirmed, on pairs not used to choose it
    pairs: int  # number of those pairs


def presence_gradients(
    tower: UserTower, histories: Histories, wanted: Tensor, item_vectors: Tensor, type_vectors: Tensor, max_length: int
) -> FloatMatrix:
    """d score / d presence of every padded event, float32 [k, b, l]: one forward and one batched backward pass.

    Args:
        tower: frozen, in evaluation mode.
        histories: a batch of b histories.
        wanted: [k, b, d] vectors of the items whose scores are explained; zero where a list has no item.
        item_vectors, type_vectors: [n_items, d], [n_types, d].
        max_length: newest events that the tower reads.
    """
    longest = int(np.minimum(histories.lengths, max_length).max(initial=0))
    presence = torch.ones(len(histories), 1 + longest, requires_grad=True)  # place 0 is the start
    users = user_vectors(tower, histories, item_vectors, type_vectors, max_length, presence)
    if len(wanted) <= MAX_DIRECTIONS:
        (gradients,) = torch.autograd.grad(users, presence, wanted, is_grads_batched=True)
    else:
        vectors = wanted.transpose(0, 1)  # [b, k, d]
        _, axes = torch.linalg.eigh(vectors @ vectors.transpose(1, 2))  # ascending
        main = axes[:, :, -MAX_DIRECTIONS:]  # [b, k, 4], orthonormal: vectors = main main' vectors, nearly
        (along,) = torch.autograd.grad(
            users, presence, (main.transpose(1, 2) @ vectors).transpose(0, 1), is_grads_batched=True
        )
        gradients = torch.einsum("bkr,rbl->kbl", main, along)
    return gradients[:, :, 1:].numpy()


def contributions(events: Positions, gradients: FloatMatrix, threshold: float) -> ListContributions:
    """Contributions of one history's items to the scores of k items; those below the threshold are zero.

    The contribution of an item is the sum over its events.

    Args:
        events: int32 [n], the item of each event of the history.
        gradients: float32 [k, at least min(n, l)], of the newest events.
        threshold: in units of the raw score.
    """
    length = min(len(events), gradients.shape[1])
    items, inverse = np.unique(events[len(events) - length :], return_inverse=True)
    values = np.zeros((len(items), len(gradients)), dtype=np.float32)
    np.add.at(values, inverse, gradients[:, :length].T)
    values[values < threshold] = 0
    return ListContributions(items.astype(np.int32), values)


def with_repeats(
    gradients: FloatMatrix, histories: Histories, items: Positions, gains: FloatMatrix, max_length: int
) -> FloatMatrix:
    """Gradients of whole histories, float32 [k, b, longest], with the gain from repeat consumption.

    Without an item of the history its gain is lost entirely, so the gain is added at the item's newest event.

    Args:
        gradients: float32 [k, b, l], of the newest events.
        histories: a batch of b histories.
        items: int32 [b, k], the listed items.
        gains: float32 [b, k], their gains from repeat consumption.
        max_length: newest events that the network reads.
    """
    lengths = histories.lengths
    whole = np.zeros((len(gradients), len(histories), int(lengths.max(initial=0))), dtype=np.float32)
    for row, length in enumerate(lengths):
        read = min(int(length), max_length)
        whole[:, row, length - read : length] = gradients[:, row, :read]
        events = histories.items[histories.offsets[row] : histories.offsets[row + 1]]
        listed, places = np.nonzero(items[row][:, None] == events)
        newest = np.full(len(gains[row]), -1)
        newest[listed] = places  # places ascend, so the newest one is written last
        held = np.flatnonzero(newest >= 0)
        whole[held, row, newest[held]] += gains[row, held]
    return whole


def to_item(found: ListContributions, column: int) -> Contributions:
    """The contributions to the item at one place of a list, largest first."""
    values = found.values[:, column]
    kept = np.flatnonzero(values)
    kept = kept[np.argsort(-values[kept], kind="stable")]
    return Contributions(found.items[kept], values[kept])


def measure_fidelity(
    evidence: list[ListContributions],
    score: Callable[[Histories, Positions], FloatVector],
    histories: Histories,
    ranked: Positions,
) -> Fidelity:
    """Choose the threshold on half of the (history, place) pairs and measure agreement with occlusion on the others.

    Args:
        evidence: contributions to the k ranked items of each of b histories.
        score: raw score of one item for each history, float32 [n].
        histories: a batch of b histories.
        ranked: int32 [b, k], the items that would be recommended.
    """
    pairs = [
        (row, column, item, value)
        for row, found in enumerate(evidence)
        for column, contribution in enumerate(to_item(found, place) for place in range(ranked.shape[1]))
        for item, value in zip(contribution.items[:_EVIDENCE], contribution.values[:_EVIDENCE], strict=True)
    ]
    if not pairs:
        return Fidelity(None, None, 0)
    rows, columns, items = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in range(3))
    values = np.array([pair[3] for pair in pairs], dtype=np.float64)
    explained = ranked[rows, columns]
    whole = histories.take(rows)
    lowered = score(whole.without_items(items), explained) < score(whole, explained)
    choosing = (rows + columns) % 2 == 0
    threshold = _threshold(values[choosing], lowered[choosing])
    judged = lowered[~choosing & (values >= threshold)]
    agreement = float(judged.mean()) if len(judged) else None
    trusted = agreement is not None and len(judged) >= _MIN_PAIRS and agreement >= REQUIRED_AGREEMENT
    return Fidelity(threshold if trusted else None, agreement, len(judged))


def _threshold(values: npt.NDArray[np.float64], lowered: npt.NDArray[np.bool_]) -> float:
    """The smallest threshold above which occlusion agrees with _TARGET_AGREEMENT; infinity where there is none."""
    order = np.argsort(-values, kind="stable")
    agreement = np.cumsum(lowered[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(agreement >= _TARGET_AGREEMENT)
    return float(values[order[good[-1]]]) if len(good) else float("inf")
