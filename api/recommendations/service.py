"""`recommend`, its next pages and `similar`: models answer, or a scenario's recipe, or popularity in their place."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from uuid import UUID

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.problems import Conflict, NotFound
from api.http.tracing import trace_id
from api.items.catalogue import CatalogueReader
from api.lists.source import ListSource
from api.recommendations.answer_ids import new_recommendation_id, once_written
from api.recommendations.answers import (
    Recommendations,
    degraded_label,
    ignored_fields,
    impression_of,
    scenario_recommendations,
)
from api.recommendations.bodies import RecommendBody, SimilarBody
from api.recommendations.fallback import Fallback
from api.recommendations.figures import count_answer
from api.recommendations.history import HistoryReader
from api.recommendations.history_store import HistoryStore
from api.recommendations.holdout import HOLDOUT, is_held_out
from api.recommendations.impressions import ImpressionLog
from api.recommendations.model_ranking import ModelRanking
from api.recommendations.pages import SEQUENCE_LIFETIME, PageSequence, expiring_pages, find_sequence
from api.recommendations.queries import recommend_query
from api.recommendations.scenario_answers import ScenarioAnswers
from api.recommendations.schemas import RecommendRequest, SimilarRequest
from configs.history import HistorySettings
from serving.client import ServingClient
from serving.contracts.filters import Filter, parse_filter
from serving.contracts.histories import read_ids
from serving.contracts.messages import ServingUnavailable, SimilarQuery

MAX_ATTEMPTS = 10
"""Callers at the same moment that each get a page of one sequence: of those that race for a number one gets it."""


class RecommendationService:
    """One per process."""

    def __init__(
        self,
        pool: Pool,
        catalogue: CatalogueReader,
        users: HistoryReader,
        models: ServingClient,
        lists: ListSource,
        impressions: ImpressionLog,
    ) -> None:
        self._pool = pool
        self._catalogue = catalogue
        self._users = users
        self._models = ModelRanking(models, catalogue)
        self._fallback = Fallback(lists)
        self.lists = lists
        self.impressions = impressions
        self._by_scenario = ScenarioAnswers(pool, catalogue, users, lists, self._models.rank, self._fallback.rank)
        self.trials = self._by_scenario.trials

    @classmethod
    @asynccontextmanager
    async def open(
        cls, pool: Pool, models: ServingClient, history: HistorySettings
    ) -> AsyncIterator["RecommendationService"]:
        """A service over this pool. On leaving, impressions that still wait are written."""
        async with (
            ImpressionLog(pool).running() as impressions,
            HistoryStore(pool, history).running() as store,
            expiring_pages(pool),
        ):
            yield cls(
                pool,
                CatalogueReader(pool),
                HistoryReader(pool, history, store),
                models,
                ListSource(pool),
                impressions,
            )

    async def recommend(
        self,
        scope: TenantScope,
        request: RecommendRequest | RecommendBody,
        filter_: Filter | None,
        *,
        shown: bool = True,
    ) -> Recommendations:
        """Items for a user, by the requested family or, labelled as such, by popularity: for users who are held out,
        and while no model answers. A scenario's recipe makes the list where the request names one.

        shown: whether the user gets to see them; only then an impression is logged. Raises NotFound where the tenant
        has no such live scenario.
        """
        found = await self._answer(scope, request, filter_)
        if shown:
            self.impressions.record(impression_of(scope, request, found))
        return found

    async def next_page(self, scope: TenantScope, recommendation_id: UUID, count: int) -> Recommendations:
        """At most `count` items that the sequence of this answer has not shown, by the request of its first answer.

        The page is written before it is returned, so that concurrent callers, of any process, get different items.

        Raises NotFound where there is no such answer of this tenant, or the first of its sequence is too old, and
        Conflict where too many callers ask for pages of one sequence at the same moment.
        """
        for _ in range(MAX_ATTEMPTS):
            sequence = await once_written(
                recommendation_id,
                lambda: find_sequence(self._pool, scope, recommendation_id),
                self.impressions.flush,
            )
            if sequence is None:
                raise NotFound(f"There is no such answer of the last {SEQUENCE_LIFETIME}")
            if sequence.ended:
                return Recommendations(recommendation_id, [], None, None)
            request = sequence.page(count)
            filter_ = None if request.filter is None else parse_filter(request.filter)
            found = await self._answer(scope, request, filter_, sequence)
            row = impression_of(scope, request, found, keep_request=False)
            if await self.impressions.write_page(row, sequence.id, sequence.pages + 1):
                return found
        raise Conflict("Too many pages of this answer were asked for at the same moment")

    async def _answer(
        self,
        scope: TenantScope,
        request: RecommendRequest | RecommendBody,
        filter_: Filter | None,
        sequence: PageSequence | None = None,
    ) -> Recommendations:
        """The answer to a request. sequence: what was shown before; None for a first answer."""
        started = perf_counter()
        session_at = None if sequence is None else sequence.started_at
        if request.scenario is not None:
            offset = 0 if sequence is None else len(sequence.shown)
            answer = await self._by_scenario.recommend(
                scope, request, filter_, lambda view: recommend_query(view, request, filter_, session_at), offset
            )
            if answer.reason is None:
                self._fallback.stand_by(scope)
            found = scenario_recommendations(answer, perf_counter() - started)
            count_answer(
                "recommend", found.source, perf_counter() - started, None if answer.holdout else found.degraded
            )
            return found
        view = await self._users.view(scope, request.user_id, request.exclude_seen)
        query = recommend_query(view, request, filter_, session_at)
        holdout = is_held_out(scope.tenant_id, request.user_id, view.holdout_share)
        reason: str | None = HOLDOUT if holdout else None
        release: str | None = None
        if not holdout:
            try:
                items, release = await self._models.rank(scope, view.catalogue_version, query)
                self._fallback.stand_by(scope)
            except ServingUnavailable as unavailable:
                reason = unavailable.reason
        if reason is not None:
            exclude = [*query.exclude, *read_ids(query.seen)]
            items = await self._fallback.rank(scope, request.count, exclude, filter_)
        degraded = None if reason is None else degraded_label(reason, ignored_fields(request))
        seconds = perf_counter() - started
        found = Recommendations(new_recommendation_id(), items, release, degraded, holdout, seconds)
        count_answer("recommend", request.algorithm, seconds, None if holdout else degraded)
        return found

    async def similar(
        self, scope: TenantScope, request: SimilarRequest | SimilarBody, filter_: Filter | None
    ) -> Recommendations:
        """Items like an item. Raises NotFound where the tenant has no such item, or no such live scenario."""
        started = perf_counter()
        if request.scenario is not None:
            found = scenario_recommendations(await self._by_scenario.similar(scope, request, filter_))
            count_answer("similar", None, perf_counter() - started, found.degraded)
            return found
        version, exists, _ = await self._catalogue.find(scope, request.item_id)
        if not exists:
            raise NotFound("There is no such item")
        query = SimilarQuery(request.item_id, request.count, request.exclude, filter_, trace_id())
        try:
            items, release = await self._models.rank(scope, version, query)
            degraded = None
        except ServingUnavailable as unavailable:
            exclude = [*request.exclude, request.item_id]
            items, release = await self._fallback.rank(scope, request.count, exclude, filter_), None
            degraded = degraded_label(unavailable.reason, ["itemId"])
        count_answer("similar", None, perf_counter() - started, degraded)
        return Recommendations(new_recommendation_id(), items, release, degraded)
