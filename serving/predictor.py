"""Answers batches of queries from one release: the whole of serving that needs no server."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import structlog

from feature_store.online import Histories
from serving import explanations, ranking
from serving.contracts.histories import pack_history
from serving.contracts.messages import (
    BatchRequest,
    BatchResponse,
    HistoryEvent,
    Query,
    QueryError,
    RankedItem,
    RecommendQuery,
    ReleaseInfo,
    SimilarQuery,
)
from serving.contracts.releases import BrokenReleaseError
from serving.filtering import Mask
from serving.loading import LoadedRelease, read_release
from serving.overlay import Catalogue
from serving.queries import (
    SCORE_DIGITS,
    SIMILAR,
    RankedLists,
    empty_histories,
    group_by_similar_family,
    group_queries,
    read_constraints,
    read_histories,
    recommended_items,
    similar_items,
)
from training.models.lists import NO_ITEM

Answer = list[RankedItem] | QueryError

log = structlog.get_logger(__name__)


class Predictor:
    """One loaded release of one tenant. Call `answer` in one thread at a time, because it replaces `catalogue`."""

    def __init__(self, release: LoadedRelease, max_events: int) -> None:
        self.manifest = release.manifest
        self.catalogue = release.catalogue
        self._score_maps = release.score_maps
        self._max_events = max_events

    @classmethod
    def load(cls, folder: Path, max_events: int) -> "Predictor":
        """Load a release folder, and answer one query by every family to verify that the models work.

        max_events: the bound on histories (`HistorySettings.max_events`). Raises BrokenReleaseError.
        """
        predictor = cls(read_release(folder), max_events)
        predictor._warm_up()
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

    def answer(self, request: BatchRequest) -> BatchResponse:
        """Answer every query of the batch, or ask for the catalogue delta since the version held here.

        A query that cannot be answered has its error in place of its items, and the others are answered.
        """
        if self.needs_delta(request):
            self.lay_over(request)
            if self.needs_delta(request):
                return self.delta_needed()
        catalogue = self.catalogue
        return BatchResponse(
            "ok", self.manifest.release, catalogue.version, self.answer_queries(catalogue, request.queries)
        )

    def needs_delta(self, request: BatchRequest) -> bool:
        """Whether the batch knows a later version of the catalogue than this predictor."""
        return request.catalogue_version > self.catalogue.version

    def lay_over(self, request: BatchRequest) -> None:
        """Move the catalogue on by the delta of the batch, or by its part; nothing happens where none fits."""
        delta = request.delta
        if delta is not None and delta.start.order <= self.catalogue.place.order:
            self.catalogue = self.catalogue.overlaid(delta)

    def delta_needed(self) -> BatchResponse:
        """The answer that asks for the delta."""
        catalogue = self.catalogue
        return BatchResponse("delta_needed", self.manifest.release, catalogue.version, place=catalogue.place)

    def answer_queries(self, catalogue: Catalogue, queries: Sequence[Query]) -> list[Answer]:
        """The answers to queries, in their order. catalogue: this predictor's, or what it was when the batch began."""
        answers: list[Answer] = ["failed"] * len(queries)
        for group, indices in group_queries(queries).items():
            grouped = [queries[index] for index in indices]
            for index, answer in zip(indices, self._answer_group(catalogue, group, grouped), strict=True):
                answers[index] = answer
        return answers

    def _answer_group(self, catalogue: Catalogue, group: str, queries: list[Query]) -> Sequence[Answer]:
        """Answer the queries of one group together; where that fails, one by one, so that only the faulty one fails."""
        try:
            if group == SIMILAR:
                return self._similar(catalogue, cast(list[SimilarQuery], queries))
            if group not in catalogue.models:
                return ["no_model"] * len(queries)
            return self._recommend(catalogue, group, cast(list[RecommendQuery], queries))
        except Exception:
            if len(queries) > 1:
                return [answer for query in queries for answer in self._answer_group(catalogue, group, [query])]
            log.exception("query failed", tenant_id=self.manifest.tenant_id, query=group, trace_id=queries[0].trace_id)
            return ["failed"]

    def _recommend(self, catalogue: Catalogue, family: str, queries: list[RecommendQuery]) -> list[list[RankedItem]]:
        lists = self.rank(
            catalogue,
            family,
            read_histories(catalogue, queries, self._max_events),
            np.array([query.count for query in queries]),
            *read_constraints(catalogue, queries),
            np.array([query.diversity for query in queries]),
        )
        return list(recommended_items(catalogue, lists))

    def rank(
        self,
        catalogue: Catalogue,
        family: str,
        histories: Histories,
        counts: npt.NDArray[np.int64],
        allowed: list[Mask | None],
        excluded: list[list[int]],
        diversity: npt.NDArray[np.float64],
    ) -> RankedLists:
        """The ranked list of every history by one family of the release.

        Args:
            catalogue: this predictor's, or one with changes laid over it. Histories hold its positions.
            counts, diversity: [batch], as in a `RecommendQuery`.
            allowed: per row a bool [n_items] of the items that may be in the list; None: all.
            excluded: per row the positions that may not.
        """
        model, score_map = catalogue.models[family], self._score_maps[family]
        scoring = model.scoring(histories)
        ranking.mask_scores(scoring.scores, allowed, excluded)
        diverse = ranking.Diversity(diversity, score_map, lambda: catalogue.vectors(family))
        scoring.complete(diverse.pools(counts))
        ranked = ranking.rank(scoring.scores, counts, diverse)
        families = explanations.main_families(scoring.component_scores(ranked.items), family)
        evidence = scoring.evidence(ranked.items, explanations.MAX_EVIDENCE)
        if not catalogue.all_visible:
            evidence[~catalogue.visible[evidence]] = NO_ITEM
        has_evidence = (evidence != NO_ITEM).any(axis=2).tolist()
        texts = explanations.texts(families, (histories.lengths > 0).tolist(), has_evidence)
        scores = np.round(score_map(ranked.scores), SCORE_DIGITS)
        return RankedLists(ranked.items, scores, families, evidence, texts)

    def _similar(self, catalogue: Catalogue, queries: list[SimilarQuery]) -> list[Answer]:
        answers: list[Answer] = ["unknown_item"] * len(queries)
        allowed, excluded = read_constraints(catalogue, queries)
        for family, indices in group_by_similar_family(catalogue, queries).items():
            items = np.array([catalogue.position_of[queries[index].item_id] for index in indices], dtype=np.int32)
            scores = ranking.mask_scores(
                ranking.cosine_scores(catalogue.vectors(family), items),
                [allowed[index] for index in indices],
                [excluded[index] for index in indices],
            )
            ranked = ranking.rank(scores, np.array([queries[index].count for index in indices]))
            for index, similar in zip(indices, similar_items(catalogue, family, ranked), strict=True):
                answers[index] = similar
        return answers

    def _warm_up(self) -> None:
        """Answer one query by every family, so that no caller waits for what is computed once.

        Raises BrokenReleaseError where a model cannot answer.
        """
        catalogue = self.catalogue
        if not catalogue.ids:
            return
        for family, model in catalogue.models.items():
            scores = model.score(empty_histories(1))
            if scores.shape != (1, len(catalogue.ids)) or not np.isfinite(scores).all():
                raise BrokenReleaseError(f"{family} gives no finite score for every item")
            catalogue.vectors(family)
            history = pack_history([HistoryEvent(catalogue.ids[0], "like", 1.0, 0)])
            self._recommend(catalogue, family, [RecommendQuery(family, 1, history)])
