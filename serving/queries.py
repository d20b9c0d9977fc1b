"""Between messages and arrays: queries as batches of positions, and ranked positions as items.

Messages name items by id, arrays by their position in the catalogue.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from feature_store.interaction_types import TYPE_CODES
from feature_store.online import Histories, build_histories
from serving.contracts.histories import read_history, read_ids
from serving.contracts.messages import Query, RankedItem, RecommendQuery, SimilarQuery
from serving.filtering import Mask
from serving.overlay import Catalogue
from training.models.contract import Positions
from training.models.lists import NO_ITEM, Ranking

SIMILAR = "similar"
SIMILAR_FAMILIES = ("hybrid", "content-based", "deep-learning", "collaborative")
"""The first of these families that is in the release and has a vector of the item answers `similar`."""
SCORE_DIGITS = 6

AnyQuery = TypeVar("AnyQuery", RecommendQuery, SimilarQuery)


@dataclass(frozen=True)
class RankedLists:
    """Ranked lists by one family, best first, padded with NO_ITEM. Under the padding the other fields mean nothing."""

    items: Positions  # [batch, k]
    scores: npt.NDArray[np.float64]  # [batch, k] in [0, 1]
    families: list[list[str]]  # [batch][k], see `explanations.main_families`
    evidence: Positions  # [batch, k, MAX_EVIDENCE], visible items of the history, padded with NO_ITEM
    explanations: list[list[str]]  # [batch][k]


def group_queries(queries: Sequence[Query]) -> dict[str, list[int]]:
    """Indices of the queries that are answered together: by family for `recommend`, under SIMILAR for `similar`."""
    groups: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        group = query.algorithm if isinstance(query, RecommendQuery) else SIMILAR
        groups.setdefault(group, []).append(index)
    return groups


def group_by_similar_family(catalogue: Catalogue, queries: list[SimilarQuery]) -> dict[str, list[int]]:
    """Indices of the queries by the family whose vectors answer them. Queries for unknown items are left out."""
    families = [family for family in SIMILAR_FAMILIES if family in catalogue.models] or list(catalogue.models)
    groups: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        position = catalogue.position_of.get(query.item_id)
        if position is None:
            continue
        with_vector = (family for family in families if catalogue.vectors(family)[position].any())
        groups.setdefault(next(with_vector, families[0]), []).append(index)
    return groups


def read_histories(catalogue: Catalogue, queries: list[RecommendQuery], max_events: int) -> Histories:
    """The queries' histories by position. Events of unknown items or types are left out."""
    newest = [read_history(query.history)[-max_events:] for query in queries]
    events = list(chain.from_iterable(newest))
    if not events:
        return empty_histories(len(queries))
    rows = np.repeat(np.arange(len(queries)), [len(each) for each in newest])
    position_of, code_of = catalogue.position_of.get, TYPE_CODES.get
    items = np.array([position_of(event.item_id, NO_ITEM) for event in events], np.int32)
    types = np.array([code_of(event.type, -1) for event in events], np.int8)
    weights = np.array([event.weight for event in events], np.float32)
    timestamps = np.array([event.timestamp for event in events], np.int64)
    known = (items != NO_ITEM) & (types >= 0)
    if not known.all():
        rows, items, types = rows[known], items[known], types[known]
        weights, timestamps = weights[known], timestamps[known]
    return build_histories(rows, items, types, weights, timestamps, len(queries), max_events)


def empty_histories(rows: int) -> Histories:
    """Histories of so many users without events."""
    return Histories(
        np.empty(0, np.int32),
        np.empty(0, np.int8),
        np.empty(0, np.float32),
        np.empty(0, np.int64),
        np.zeros(rows + 1, np.int64),
    )


def read_constraints(catalogue: Catalogue, queries: Sequence[AnyQuery]) -> tuple[list[Mask | None], list[list[int]]]:
    """Per query: the mask of items that may be in its list, bool [n_items] or None for all, and what it excludes."""
    visible = None if catalogue.all_visible else catalogue.visible
    allowed = [
        visible if query.filter is None else catalogue.visible & catalogue.columns.mask(query.filter)
        for query in queries
    ]
    position_of = catalogue.position_of
    excluded = [[position_of[item] for item in _excluded_ids(query) if item in position_of] for query in queries]
    return allowed, excluded


def _excluded_ids(query: Query) -> list[str]:
    return [*query.exclude, *read_ids(query.seen)] if isinstance(query, RecommendQuery) else query.exclude


def recommended_items(catalogue: Catalogue, lists: RankedLists) -> Iterable[list[RankedItem]]:
    """The items of each list."""
    ids = catalogue.ids
    columns = (lists.items.tolist(), lists.scores.tolist(), lists.families, lists.explanations, lists.evidence.tolist())
    for row in zip(*columns, strict=True):
        items = []
        for position, score, family, explanation, evidence in zip(*row, strict=True):
            if position == NO_ITEM:
                break
            sources = [ids[source] for source in evidence if source != NO_ITEM]
            items.append(RankedItem(ids[position], score, family, explanation, sources))
        yield items


def similar_items(catalogue: Catalogue, family: str, ranked: Ranking) -> Iterable[list[RankedItem]]:
    """The items of each list, with cosines in [0, 1] as scores and without explanations."""
    scores = np.round(np.clip(ranked.scores.astype(np.float64), 0, 1), SCORE_DIGITS).tolist()
    for positions, values in zip(ranked.items.tolist(), scores, strict=True):
        yield [
            RankedItem(catalogue.ids[position], value, family, "", [])
            for position, value in zip(positions, values, strict=True)
            if position != NO_ITEM
        ]
