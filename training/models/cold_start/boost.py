"""The cold-item boost: what an ensemble adds to the scores of cold items, so that they get a share of its lists.

Most base models give cold items their lowest score, so without a boost hardly any would be recommended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict

from feature_store.online import Histories
from training.data.splits import Holdout
from training.evaluation.metrics import ndcg_of_lists
from training.evaluation.rankings import LIST_LENGTH
from training.models.contract import Doubles, FloatMatrix, Mask
from training.models.lists import top_k

Score = Callable[[Histories], FloatMatrix]
"""Histories to the ensemble's scores without a boost, float32 [batch, n_items], each row divided by size ** growth."""
ROWS_AT_ONCE = 64
HALVINGS = 3
COLD_START_WEIGHTS = (1.0, 0.1, 0.01)
"""Weights to try for the cold-start model, as shares of the spread of its scores."""


class ColdItemBoost(BaseModel):
    """What is added to the score of every cold item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None = None  # in the scale of the ensemble, for a history of one item; None: no boost
    share: float = 0.0  # of the places of lists that cold items take with it
    ndcg: float = 0.0  # NDCG@10 with it, divided by that of lists without any cold item


class ColdStartModel(BaseModel):
    """The base model whose weighted scores are added for cold items alone, where another single base model is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    weight: float


@dataclass(frozen=True)
class _Lists:
    """The best cold items and the best other items of each of q queries, best first."""

    warm: FloatMatrix  # [q, LIST_LENGTH] scores, -inf where there are fewer
    warm_hits: Mask  # [q, LIST_LENGTH] which of them are targets
    cold: FloatMatrix  # [q, LIST_LENGTH]
    cold_hits: Mask  # [q, LIST_LENGTH]
    n_targets: npt.NDArray[np.int64]  # [q]


def find_boost(score: Score, cold: Mask, queries: Holdout, max_share: float, max_cost: float) -> ColdItemBoost:
    """The boost with which cold items take the largest share of the places of lists that `max_cost` allows.

    The share is measured on lists without the users' earlier items. The cost is measured on lists with the masks of
    the queries, which may leave earlier items in.

    Args:
        score: without a boost.
        cold: bool [n_items].
        queries: what the ensemble was learned from.
        max_share: the largest share; its halves are tried too, HALVINGS times.
        max_cost: the largest loss of NDCG, as a share of the NDCG of lists without cold items.
    """
    if not cold.any() or cold.all() or not len(queries) or max_share <= 0:
        return ColdItemBoost()
    with_masks, unseen = _best_of_all(score, cold, queries)
    weights = 1 / np.bincount(queries.users)[queries.users]
    without = float(np.average(_ndcg(with_masks, -np.inf), weights=weights))
    for share in max_share * 0.5 ** np.arange(HALVINGS + 1):
        value = _boost_for(share, unseen)
        if value is None:
            continue
        reached = float(np.average(_ndcg(with_masks, value), weights=weights))
        if reached >= without * (1 - max_cost):
            return ColdItemBoost(value=value, share=share, ndcg=reached / without if without else 1.0)
    return ColdItemBoost()


def largest_boost(
    models: Sequence[ColdStartModel | None],
    boost_with: Callable[[ColdStartModel | None], ColdItemBoost],
    max_share: float,
) -> tuple[ColdItemBoost, ColdStartModel | None]:
    """The boost with the largest share, and the first cold-start model that reaches it; None if none has a share.

    The less a cold-start model separates cold items, the more evenly they enter lists, and the less that costs.

    Args:
        models: cold-start models to try.
        boost_with: the boost that a cold-start model allows.
        max_share: the largest share; once it is reached, no further model is tried.
    """
    best: tuple[ColdItemBoost, ColdStartModel | None] = (ColdItemBoost(), None)
    for model in models:
        boost = boost_with(model)
        if boost.share > best[0].share:
            best = (boost, model)
        if boost.share >= max_share:
            break
    return best


def resized_boost(
    boost: ColdItemBoost, score: Score, cold: Mask, histories: Histories, seen: sp.csr_array
) -> ColdItemBoost:
    """The boost with which today's cold items take the share that `boost` was sized for.

    Base models that were fitted again score on another scale, and other items are cold to them.

    Args:
        boost: as `find_boost` found it.
        score: today's, without a boost.
        cold: bool [n_items], today's cold items.
        histories: of users of today, whose lists are measured.
        seen: bool [len(histories), n_items], all earlier items of these users, which are left out of the lists.
    """
    if boost.value is None or not len(histories):
        return boost
    if not cold.any() or cold.all():
        return ColdItemBoost()
    nothing = sp.csr_array((len(histories), len(cold)), dtype=bool)
    queries = Holdout(np.arange(len(histories), dtype=np.int32), histories, targets=nothing, masked=seen)
    _, unseen = _best_of_all(score, cold, queries)
    value = _boost_for(boost.share, unseen)
    return ColdItemBoost() if value is None else boost.model_copy(update={"value": value})


def _best_of_all(score: Score, cold: Mask, queries: Holdout) -> tuple[_Lists, _Lists]:
    """The best items with the masks of the queries, and those without the items of the histories as well."""
    found: tuple[list[_Lists], list[_Lists]] = ([], [])
    for start in range(0, len(queries), ROWS_AT_ONCE):
        batch = queries.take(np.arange(start, min(start + ROWS_AT_ONCE, len(queries))))
        scores, masked, targets = score(batch.histories), batch.masked.toarray(), batch.targets.toarray()
        found[0].append(_best(scores, masked, targets, cold))
        masked[batch.histories.rows, batch.histories.items] = True
        found[1].append(_best(scores, masked, targets, cold))
    with_masks, unseen = (
        _Lists(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(_Lists)))
        for parts in found
    )
    return with_masks, unseen


def _best(scores: FloatMatrix, masked: Mask, targets: Mask, cold: Mask) -> _Lists:
    warm_scores, warm_hits = _top(scores, masked | cold, targets)
    cold_scores, cold_hits = _top(scores, masked | ~cold, targets)
    return _Lists(warm_scores, warm_hits, cold_scores, cold_hits, targets.sum(axis=1))


def _top(scores: FloatMatrix, masked: Mask, targets: Mask) -> tuple[FloatMatrix, Mask]:
    """The LIST_LENGTH best scores of each row that are not masked, and which of them are targets."""
    found = top_k(np.where(masked, -np.inf, scores), LIST_LENGTH)
    chosen = np.take_along_axis(targets, found.items.clip(min=0).astype(np.int64), axis=1)
    padding = ((0, 0), (0, LIST_LENGTH - found.items.shape[1]))
    return np.pad(found.scores, padding, constant_values=-np.inf), np.pad(chosen & (found.items >= 0), padding)


def _boost_for(share: float, lists: _Lists) -> float | None:
    """The boost with which cold items take this share of all places; None where there are too few of them."""
    # A list of length k holds m cold items once the m-th of them beats the (k - m + 1)-th of the others, so the gap
    # between the two is the boost from which it does.
    gaps = np.full(lists.warm.shape, np.inf, dtype=np.float32)  # infinite: no further cold item
    np.subtract(lists.warm[:, ::-1], lists.cold, out=gaps, where=np.isfinite(lists.cold))
    needed = np.sort(np.maximum.accumulate(gaps, axis=1).ravel())
    place = max(1, round(share * needed.size))
    found = float(needed[place - 1])
    if found == -np.inf:  # the lists have that many free places without a boost
        return 0.0
    return found + 1e-6 * abs(found) if np.isfinite(found) else None


def _ndcg(lists: _Lists, boost: float) -> Doubles:
    """NDCG@10 of every query with this boost, float64 [q]."""
    scores = np.hstack([lists.warm, lists.cold + np.float32(boost)])
    targets = np.hstack([lists.warm_hits, lists.cold_hits])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :LIST_LENGTH]
    hits = np.take_along_axis(targets & (scores > -np.inf), order, axis=1)
    return ndcg_of_lists(hits, lists.n_targets, LIST_LENGTH)
