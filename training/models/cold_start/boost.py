"""Items that nobody has had yet, in lists blended from components of which most know nothing of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict

from feature_store.online import Histories
from training.data.splits import Holdout
from training.evaluation.metrics import ndcg_of_lists
from training.models.contract import FloatMatrix, Mask, top_k
from training.models.hybrid.ranker import CUTOFF, Doubles

Blended = Callable[[Histories], FloatMatrix]
"""Histories to float32 [batch, n_items]: what the blend says, each row divided by size ** growth."""
ROWS_AT_ONCE = 64
HALVINGS = 3
GUIDE_WEIGHTS = (1.0, 0.1, 0.01)
"""Tried shares of the spread of content's scores."""


class Lift(BaseModel):
    """What newcomers get beside what is said of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None = None  # in the scale of the blend, for a history of one item; None: they get nothing
    share: float = 0.0  # of the places of lists that it was sized for
    ndcg: float = 0.0  # NDCG@10 with it, over that without any newcomer in the lists


class Guide(BaseModel):
    """The component that speaks of newcomers only, where the one that is kept knows nothing of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    weight: float


@dataclass(frozen=True)
class _Lists:
    """The best newcomers and the best others of every question, best first."""

    known: FloatMatrix  # [Q, CUTOFF] scores, -inf where there are fewer
    known_chosen: Mask  # [Q, CUTOFF]
    newcomers: FloatMatrix
    newcomers_chosen: Mask
    n_targets: npt.NDArray[np.int64]  # [Q]


def find_lift(blended: Blended, newcomers: Mask, questions: Holdout, most: float, cost: float) -> Lift:
    """The lift with which newcomers take a share of the places of lists, as large as what it costs allows.

    The share is of lists without what users had; the cost is that of the questions, which may leave it in.

    Args:
        blended: scores, in which newcomers have no lift.
        newcomers: bool [n_items].
        questions: what the blend was learned from.
        most: the largest share; halves of it are tried too, HALVINGS times.
        cost: share of the NDCG of lists without newcomers that may be given up.
    """
    if not newcomers.any() or newcomers.all() or not len(questions) or most <= 0:
        return Lift()
    asked, unseen = _gather(blended, newcomers, questions)
    shares = 1 / np.bincount(questions.users)[questions.users]
    without = float(np.average(_ndcg(asked, -np.inf), weights=shares))
    for share in most * 0.5 ** np.arange(HALVINGS + 1):
        value = _lift_to(share, unseen)
        if value is None:
            continue
        reached = float(np.average(_ndcg(asked, value), weights=shares))
        if reached >= without * (1 - cost):
            return Lift(value=value, share=share, ndcg=reached / without if without else 1.0)
    return Lift()


def widest(
    guides: Sequence[Guide | None], lift_under: Callable[[Guide | None], Lift], most: float
) -> tuple[Lift, Guide | None]:
    """The largest lift, and the first of the guides under which it is reached; no guide where there is none.

    The less content tells newcomers apart, the more evenly they come into lists, and the less that costs.

    Args:
        guides: what may speak of newcomers.
        lift_under: the lift that a guide allows.
        most: the largest share; where it is reached, no further guide is tried.
    """
    best: tuple[Lift, Guide | None] = (Lift(), None)
    for guide in guides:
        lift = lift_under(guide)
        if lift.share > best[0].share:
            best = (lift, guide)
        if lift.share >= most:
            break
    return best


def lift_again(lift: Lift, blended: Blended, newcomers: Mask, histories: Histories, seen: sp.csr_array) -> Lift:
    """The lift with which the newcomers of today take the share that `lift` was sized for.

    Components that learned from more say it in other numbers, and other items are new to them.

    Args:
        lift: as it was found.
        blended: scores of today, in which newcomers have no lift.
        newcomers: bool [n_items].
        histories: of users of today, whose lists are looked at.
        seen: bool [len(histories), n_items], what they had, in their histories and before: the lists are without it.
    """
    if lift.value is None or not len(histories):
        return lift
    if not newcomers.any() or newcomers.all():
        return Lift()
    nothing = sp.csr_array((len(histories), len(newcomers)), dtype=bool)
    questions = Holdout(np.arange(len(histories), dtype=np.int32), histories, targets=nothing, masked=seen)
    _, unseen = _gather(blended, newcomers, questions)
    value = _lift_to(lift.share, unseen)
    return Lift() if value is None else lift.model_copy(update={"value": value})


def _gather(blended: Blended, newcomers: Mask, questions: Holdout) -> tuple[_Lists, _Lists]:
    """The best items as the questions ask for them, and among what the users had not."""
    found: tuple[list[_Lists], list[_Lists]] = ([], [])
    for start in range(0, len(questions), ROWS_AT_ONCE):
        batch = questions.take(np.arange(start, min(start + ROWS_AT_ONCE, len(questions))))
        scores, masked, targets = blended(batch.histories), batch.masked.toarray(), batch.targets.toarray()
        found[0].append(_best(scores, masked, targets, newcomers))
        masked[batch.histories.rows, batch.histories.items] = True
        found[1].append(_best(scores, masked, targets, newcomers))
    asked, unseen = (
        _Lists(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(_Lists)))
        for parts in found
    )
    return asked, unseen


def _best(scores: FloatMatrix, masked: Mask, targets: Mask, newcomers: Mask) -> _Lists:
    known, known_chosen = _top(scores, masked | newcomers, targets)
    new, new_chosen = _top(scores, masked | ~newcomers, targets)
    return _Lists(known, known_chosen, new, new_chosen, targets.sum(axis=1))


def _top(scores: FloatMatrix, masked: Mask, targets: Mask) -> tuple[FloatMatrix, Mask]:
    """The CUTOFF best scores of each row that are not masked, and which of them are targets."""
    found = top_k(np.where(masked, -np.inf, scores), CUTOFF)
    chosen = np.take_along_axis(targets, found.items.clip(min=0).astype(np.int64), axis=1)
    room = ((0, 0), (0, CUTOFF - found.items.shape[1]))
    return np.pad(found.scores, room, constant_values=-np.inf), np.pad(chosen & (found.items >= 0), room)


def _lift_to(share: float, lists: _Lists) -> float | None:
    """What is added to newcomers for them to take this share of all places; None where they are too few for that."""
    # With m newcomers in a list the m-th of them beats the (CUTOFF - m + 1)-th of the others: the list has m of them
    # from the lift that closes this gap.
    gaps = np.full(lists.known.shape, np.inf, dtype=np.float32)  # no further newcomer
    np.subtract(lists.known[:, ::-1], lists.newcomers, out=gaps, where=np.isfinite(lists.newcomers))
    enters = np.sort(np.maximum.accumulate(gaps, axis=1).ravel())
    place = max(1, round(share * enters.size))
    found = float(enters[place - 1])
    if found == -np.inf:  # lists have that much room as they are
        return 0.0
    return found + 1e-6 * abs(found) if np.isfinite(found) else None


def _ndcg(lists: _Lists, lift: float) -> Doubles:
    """NDCG@10 of every question with this lift, [Q]."""
    scores = np.hstack([lists.known, lists.newcomers + np.float32(lift)])
    chosen = np.hstack([lists.known_chosen, lists.newcomers_chosen])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :CUTOFF]
    hits = np.take_along_axis(chosen & (scores > -np.inf), order, axis=1)
    return ndcg_of_lists(hits, lists.n_targets, CUTOFF)
