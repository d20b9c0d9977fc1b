"""Answers batches of queries from one release: the whole of serving that needs no server."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import structlog

from feature_store.interaction_types import TYPE_CODES
from feature_store.online import Histories, build_histories
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
from training.models.contract import NO_ITEM, FloatMatrix, Positions, Ranking

SIMILAR_FAMILIES = ("hybrid", "content-based", "deep-learning", "collaborative")
"""Whose vectors answer `similar`: the first of these that the release has and that knows the item."""
SCORE_DIGITS = 6

log = structlog.get_logger(__name__)
AnyQuery = TypeVar("AnyQuery", RecommendQuery, SimilarQuery)


@dataclass(frozen=True)
class Lists:
    """Ranked lists of one family, best first, padded with NO_ITEM; under the padding nothing else has a meaning."""

    items: Positions  # [batch, k]
    scores: npt.NDArray[np.float64]  # [batch, k] in [0, 1]
    carriers: list[list[str]]  # [batch][k], the family that carried the item
    evidence: Positions  # [batch, k, MAX_EVIDENCE], visible items of the history, padded with NO_ITEM
    reasons: list[list[str]]  # [batch][k]


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
            self._recommend(catalogue, family, [RecommendQuery(family, 1, history)])

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

    def lists(
        self,
        catalogue: Catalogue,
        family: str,
        histories: Histories,
        counts: npt.NDArray[np.int64],
        allowed: list[Mask],
        excluded: list[list[int]],
        diversity: npt.NDArray[np.float64],
    ) -> Lists:
        """The ranked list of every history by one family of the release.

        Args:
            catalogue: this predictor's, or one laid over it; histories hold its positions.
            counts, diversity: [batch], as in a `RecommendQuery`.
            allowed: per row a bool [n_items] of the items that may enter; excluded: per row positions that may not.
        """
        model, score_map = catalogue.models[family], self._score_maps[family]
        component_scores = model.component_scores(histories)
        ranked = ranking.rank(
            ranking.admit(_total(component_scores), allowed, excluded),
            counts,
            ranking.Diversity(diversity, score_map, lambda: catalogue.vectors(family)),
        )
        carried = explanations.carriers(component_scores, family, ranked.items)
        evidence = model.evidence(histories, ranked.items, explanations.MAX_EVIDENCE)
        shown = (evidence != NO_ITEM) & catalogue.visible[evidence]
        reasons = [
            [explanations.text(*each) for each in zip(carriers, repeat(has_history), has_evidence, strict=False)]
            for carriers, has_history, has_evidence in zip(
                carried, (histories.lengths > 0).tolist(), shown.any(axis=2).tolist(), strict=True
            )
        ]
        scores = np.round(score_map(ranked.scores), SCORE_DIGITS)
        return Lists(ranked.items, scores, carried, np.where(shown, evidence, NO_ITEM), reasons)

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
        lists = self.lists(
            catalogue,
            family,
            self._histories(catalogue, queries),
            np.array([query.count for query in queries]),
            *_admission(catalogue, queries),
            np.array([query.diversity for query in queries]),
        )
        answers = []
        columns = (lists.items.tolist(), lists.scores.tolist(), lists.carriers, lists.evidence.tolist(), lists.reasons)
        for row in zip(*columns, strict=True):
            items = []
            for position, score, carrier, evidence, reason in zip(*row, strict=True):
                if position == NO_ITEM:
                    break
                ids = [catalogue.ids[source] for source in evidence if source != NO_ITEM]
                items.append(RankedItem(catalogue.ids[position], score, carrier, ids, reason))
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
