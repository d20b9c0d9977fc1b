"""Answers batches of queries from one release: the whole of serving that needs no server."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import structlog

from feature_store.online import TYPE_CODES, Histories, build_histories
from serving import explanations, ranking
from serving.contracts.messages import (
    Answer,
    BatchRequest,
    BatchResponse,
    Event,
    Query,
    RankedItem,
    RecommendQuery,
    ReleaseInfo,
    SimilarQuery,
)
from serving.contracts.releases import BrokenReleaseError
from serving.filtering import Mask
from serving.loading import LoadedRelease, read_release
from serving.overlay import Catalogue
from training.models.contract import NO_ITEM, FloatMatrix, Ranking

SIMILAR_FAMILIES = ("hybrid", "content-based", "deep-learning", "collaborative")
"""Whose vectors answer `similar`: the first of these that the release has and that knows the item."""
SCORE_DIGITS = 6

log = structlog.get_logger(__name__)
AnyQuery = TypeVar("AnyQuery", RecommendQuery, SimilarQuery)


class Predictor:
    """One release of one tenant, loaded. `answer` is for one thread at a time."""

    def __init__(self, release: LoadedRelease, max_events: int) -> None:
        self.manifest = release.manifest
        self.catalogue = release.catalogue
        self._score_maps = release.score_maps
        self._max_events = max_events

    @classmethod
    def load(cls, folder: Path, max_events: int) -> "Predictor":
        """A predictor of a release folder that has answered a query of every family.

        max_events: the bound on histories (`HistorySettings.max_events`). Raises BrokenReleaseError.
        """
        predictor = cls(read_release(folder), max_events)
        predictor._warm()
        return predictor

    @property
    def info(self) -> ReleaseInfo:
        return ReleaseInfo(
            release=self.manifest.release,
            created_at=self.manifest.created_at,
            base_version=self.manifest.catalogue_version,
            catalogue_version=self.catalogue.version,
            families={family: model.version for family, model in self.manifest.families.items()},
        )

    def _warm(self) -> None:
        """Answer one query of every kind, so that no caller pays for what is computed once.

        Raises BrokenReleaseError where a model cannot answer.
        """
        catalogue = self.catalogue
        if not catalogue.ids:
            return
        for family, model in catalogue.models.items():
            scores = model.score(_no_histories(1))
            if scores.shape != (1, len(catalogue.ids)) or not np.isfinite(scores).all():
                raise BrokenReleaseError(f"{family} gives no finite score for every item")
            catalogue.vectors(family)
            history = [Event(catalogue.ids[0], "like", 1.0, 0)]
            self._recommend(catalogue, family, [RecommendQuery(cast(Any, family), 1, history)])

    def answer(self, request: BatchRequest) -> BatchResponse:
        """Answer every query of the batch, or ask for the catalogue delta since the version held here.

        A failure of one query is that answer's `error`, and leaves the others alone.
        """
        if request.catalogue_version > self.catalogue.version:
            delta = request.delta
            if delta is None or delta.since > self.catalogue.version or delta.version < request.catalogue_version:
                return BatchResponse("delta_needed", self.manifest.release, self.catalogue.version)
            self.catalogue = self.catalogue.overlaid(delta)
        catalogue = self.catalogue
        answers: list[Answer] = [Answer()] * len(request.queries)
        for group, indices in _groups(request.queries).items():
            queries = [request.queries[index] for index in indices]
            for index, answer in zip(indices, self._answer_group(catalogue, group, queries), strict=True):
                answers[index] = answer
        return BatchResponse("ok", self.manifest.release, catalogue.version, answers)

    def _answer_group(self, catalogue: Catalogue, group: str, queries: list[Query]) -> list[Answer]:
        """Answers to queries of one kind at once; one by one where that fails, so that only the culprit does."""
        try:
            if group == _SIMILAR:
                return self._similar(catalogue, cast(list[SimilarQuery], queries))
            if group not in catalogue.models:
                return [Answer(error="no_model")] * len(queries)
            return self._recommend(catalogue, group, cast(list[RecommendQuery], queries))
        except Exception:
            if len(queries) > 1:
                return [answer for query in queries for answer in self._answer_group(catalogue, group, [query])]
            log.exception("query failed", tenant_id=self.manifest.tenant_id, query=group, trace_id=queries[0].trace_id)
            return [Answer(error="failed")]

    def _recommend(self, catalogue: Catalogue, family: str, queries: list[RecommendQuery]) -> list[Answer]:
        model = catalogue.models[family]
        score_map = self._score_maps[family]
        histories = self._histories(catalogue, queries)
        parts = model.parts(histories)
        scores = _total(parts)
        ranked = ranking.rank(
            ranking.admit(scores, *_admission(catalogue, queries)),
            np.array([query.count for query in queries]),
            ranking.Diversity(
                np.array([query.diversity for query in queries]), score_map, lambda: catalogue.vectors(family)
            ),
        )
        carried = explanations.carriers(parts, family, ranked.items)
        evidence = model.evidence(histories, ranked.items, explanations.MAX_EVIDENCE)
        mapped = np.round(score_map(ranked.scores), SCORE_DIGITS).tolist()
        lengths = histories.lengths > 0
        answers = []
        for row in range(len(queries)):
            items = []
            for column, position in enumerate(ranked.items[row].tolist()):
                if position == NO_ITEM:
                    break
                ids = [
                    catalogue.ids[source]
                    for source in evidence[row, column].tolist()
                    if source != NO_ITEM and catalogue.visible[source]
                ]
                algorithm = carried[row][column]
                explanation = explanations.text(algorithm, bool(lengths[row]), bool(ids))
                items.append(RankedItem(catalogue.ids[position], mapped[row][column], algorithm, ids, explanation))
            answers.append(Answer(items))
        return answers

    def _similar(self, catalogue: Catalogue, queries: list[SimilarQuery]) -> list[Answer]:
        answers: list[Answer] = [Answer(error="unknown_item")] * len(queries)
        allowed, excluded = _admission(catalogue, queries)
        for family, indices in _by_family(catalogue, queries).items():
            items = np.array([catalogue.position_of[queries[index].item_id] for index in indices], dtype=np.int32)
            cosines = ranking.similar(catalogue.vectors(family), items)
            ranked = ranking.rank(
                ranking.admit(cosines, [allowed[index] for index in indices], [excluded[index] for index in indices]),
                np.array([queries[index].count for index in indices]),
            )
            for index, answer in zip(indices, _similar_answers(catalogue, family, ranked), strict=True):
                answers[index] = answer
        return answers

    def _histories(self, catalogue: Catalogue, queries: list[RecommendQuery]) -> Histories:
        """The queries' histories by position; events of items or types not known here are left out."""
        events = list(chain.from_iterable(query.history for query in queries))
        if not events:
            return _no_histories(len(queries))
        rows = np.repeat(np.arange(len(queries)), [len(query.history) for query in queries])
        position_of, code_of = catalogue.position_of.get, TYPE_CODES.get
        items = np.array([position_of(event.item_id, NO_ITEM) for event in events], np.int32)
        types = np.array([code_of(event.type, -1) for event in events], np.int8)
        weights = np.array([event.weight for event in events], np.float32)
        timestamps = np.array([event.timestamp for event in events], np.int64)
        known = (items != NO_ITEM) & (types >= 0)
        if not known.all():
            rows, items, types = rows[known], items[known], types[known]
            weights, timestamps = weights[known], timestamps[known]
        return build_histories(rows, items, types, weights, timestamps, len(queries), self._max_events)


_SIMILAR = "similar"


def _groups(queries: Sequence[Query]) -> dict[str, list[int]]:
    """Indices of the queries that one pass answers."""
    groups: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        group = query.algorithm if isinstance(query, RecommendQuery) else _SIMILAR
        groups.setdefault(group, []).append(index)
    return groups


def _by_family(catalogue: Catalogue, queries: list[SimilarQuery]) -> dict[str, list[int]]:
    """Indices of the queries for known items, by the family whose vectors answer them."""
    families = [family for family in SIMILAR_FAMILIES if family in catalogue.models] or list(catalogue.models)
    chosen: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        position = catalogue.position_of.get(query.item_id)
        if position is None:
            continue
        knowing = (family for family in families if catalogue.vectors(family)[position].any())
        chosen.setdefault(next(knowing, families[0]), []).append(index)
    return chosen


def _similar_answers(catalogue: Catalogue, family: str, ranked: Ranking) -> Iterable[Answer]:
    scores = np.round(np.clip(ranked.scores.astype(np.float64), 0, 1), SCORE_DIGITS).tolist()
    for positions, values in zip(ranked.items.tolist(), scores, strict=True):
        yield Answer(
            [
                RankedItem(catalogue.ids[position], value, family, [], "")
                for position, value in zip(positions, values, strict=True)
                if position != NO_ITEM
            ]
        )


def _admission(catalogue: Catalogue, queries: Sequence[AnyQuery]) -> tuple[list[Mask], list[list[int]]]:
    """Per query: the mask of items that may enter, and the positions that it excludes."""
    allowed = [
        catalogue.visible if query.filter is None else catalogue.visible & catalogue.columns.mask(query.filter)
        for query in queries
    ]
    position_of = catalogue.position_of
    excluded = [[position_of[item] for item in query.exclude if item in position_of] for query in queries]
    return allowed, excluded


def _total(parts: dict[str, FloatMatrix]) -> FloatMatrix:
    first, *rest = parts.values()
    if not rest:
        return first
    total = first + rest[0]
    for part in rest[1:]:
        total += part
    return total


def _no_histories(rows: int) -> Histories:
    return Histories(
        np.empty(0, np.int32),
        np.empty(0, np.int8),
        np.empty(0, np.float32),
        np.empty(0, np.int64),
        np.zeros(rows + 1, np.int64),
    )
