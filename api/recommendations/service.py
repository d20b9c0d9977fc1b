"""`recommend` and `similar`: read the user's view, ask the models, and check that the items may still be shown."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from uuid import UUID

import msgspec
import structlog

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.problems import Conflict, NotFound
from api.http.tracing import trace_id
from api.items.catalogue import CatalogueReader
from api.lists.source import ListSource
from api.recommendations.answer_ids import new_recommendation_id, once_written
from api.recommendations.bodies import RecommendBody, SimilarBody
from api.recommendations.fallback import ALGORITHM as POPULARITY
from api.recommendations.fallback import Fallback
from api.recommendations.figures import count_answer
from api.recommendations.history import HistoryReader, UserView
from api.recommendations.history_store import HistoryStore
from api.recommendations.holdout import HOLDOUT, is_held_out
from api.recommendations.impressions import ImpressionLog, ImpressionRow
from api.recommendations.pages import SEQUENCE_LIFETIME, PageSequence, expiring_pages, find_sequence, kept_request
from api.recommendations.scenario_answers import ScenarioAnswer, ScenarioAnswers
from api.recommendations.schemas import RecommendRequest, SimilarRequest
from api.scenarios.live import LiveScenario
from configs.settings import HistorySettings
from feature_store.interaction_types import SEEN_TYPES, TYPE_WEIGHTS
from serving.client import ModelAnswer, ServingClient
from serving.contracts.filters import Filter, parse_filter
from serving.contracts.histories import read_ids, with_events
from serving.contracts.messages import (
    CatalogueDelta,
    CataloguePlace,
    HistoryEvent,
    Query,
    RankedItem,
    RecommendQuery,
    ServingUnavailable,
    SimilarQuery,
)

SESSION_TYPE = "click"
"""An item of the current session counts like an event of this type, since the user went to it."""
MAX_ATTEMPTS = 10
"""Callers at the same moment that each get a page of one sequence: of those that race for a number one gets it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Recommendations:
    """An answer: its items, best first, and what its headers say."""

    recommendation_id: UUID
    items: list[RankedItem]
    release: str | None  # None where popularity answered
    degraded: str | None  # why no model answered, and what of the request was ignored; None where a model did
    holdout: bool = False  # whether popularity answered because the user is held out
    seconds: float | None = None  # that it took
    scenario: LiveScenario | None = None  # whose recipe made the list
    source: str | None = None  # of a scenario's list

    def answered_by(self, requested: str) -> str:
        """The family that answered, a list of a scenario that did, or popularity in their place."""
        return self.source or (requested if self.degraded is None else POPULARITY)


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
        self._models = models
        self._fallback = Fallback(lists)
        self.lists = lists
        self.impressions = impressions
        self._by_scenario = ScenarioAnswers(pool, catalogue, users, lists, self._ask, self._fallback.rank)
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
            self.impressions.record(_impression(scope, request, found))
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
            row = _impression(scope, request, found, keep_request=False)
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
                scope, request, filter_, lambda view: self._query(view, request, filter_, session_at), offset
            )
            if answer.reason is None:
                self._fallback.stand_by(scope)
            found = _of_scenario(answer, perf_counter() - started)
            count_answer(
                "recommend", found.source, perf_counter() - started, None if answer.holdout else found.degraded
            )
            return found
        view = await self._users.view(scope, request.user_id, request.exclude_seen)
        query = self._query(view, request, filter_, session_at)
        holdout = is_held_out(scope.tenant_id, request.user_id, view.holdout_share)
        reason: str | None = HOLDOUT if holdout else None
        release: str | None = None
        if not holdout:
            try:
                items, release = await self._ask(scope, view.catalogue_version, query)
                self._fallback.stand_by(scope)
            except ServingUnavailable as unavailable:
                reason = unavailable.reason
        if reason is not None:
            exclude = [*query.exclude, *read_ids(query.seen)]
            items = await self._fallback.rank(scope, request.count, exclude, filter_)
        degraded = None if reason is None else _degraded(reason, _ignored(request))
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
            found = _of_scenario(await self._by_scenario.similar(scope, request, filter_))
            count_answer("similar", None, perf_counter() - started, found.degraded)
            return found
        version, exists, _ = await self._catalogue.find(scope, request.item_id)
        if not exists:
            raise NotFound("There is no such item")
        query = SimilarQuery(request.item_id, request.count, request.exclude, filter_, trace_id())
        try:
            items, release = await self._ask(scope, version, query)
            degraded = None
        except ServingUnavailable as unavailable:
            exclude = [*request.exclude, request.item_id]
            items, release = await self._fallback.rank(scope, request.count, exclude, filter_), None
            degraded = _degraded(unavailable.reason, ["itemId"])
        count_answer("similar", None, perf_counter() - started, degraded)
        return Recommendations(new_recommendation_id(), items, release, degraded)

    def _query(
        self,
        view: UserView,
        request: RecommendRequest | RecommendBody,
        filter_: Filter | None,
        session_at: datetime | None,
    ) -> RecommendQuery:
        """session_at: when the items of the session were had; None: now. Every page of a sequence says the same."""
        session = request.context.session_items if request.context else []
        history = view.history
        if session:
            at = int((session_at or datetime.now(UTC)).timestamp() * 1_000_000)
            events = [HistoryEvent(id_, SESSION_TYPE, TYPE_WEIGHTS[SESSION_TYPE], at) for id_ in session]
            history = with_events(bytes(history), events)
        exclude = request.exclude
        if session and SESSION_TYPE in SEEN_TYPES[view.exclude_seen]:
            exclude = [*exclude, *session]
        return RecommendQuery(
            request.algorithm,
            request.count,
            history,
            exclude,
            filter_,
            request.diversity,
            trace_id(),
            view.seen,
        )

    async def _ask(self, scope: TenantScope, version: int, query: Query) -> tuple[list[RankedItem], str]:
        """The models' items and the release that ranked them.

        Items may leave the catalogue while the models answer. Then the models are asked once more without them, so that
        the list is full again; what leaves during the second call is cut from the list.
        """
        answer = await self._ask_once(scope, version, query)
        gone = await self._gone(scope, answer)
        if not gone:
            return answer.items, answer.release
        log.info("asking again: items left the catalogue meanwhile", count=len(gone))
        query = msgspec.structs.replace(query, exclude=[*query.exclude, *gone])
        answer = await self._ask_once(scope, await self._catalogue.version(scope), query)
        gone = await self._gone(scope, answer)
        return [item for item in answer.items if item.item_id not in gone], answer.release

    async def _ask_once(self, scope: TenantScope, version: int, query: Query) -> ModelAnswer:
        async def load_delta(since: CataloguePlace) -> CatalogueDelta:
            return await self._catalogue.delta(scope, since)

        return await self._models.ask(scope.tenant_id, version, query, load_delta)

    async def _gone(self, scope: TenantScope, answer: ModelAnswer) -> set[str]:
        """Items of the answer that may not be shown any more; none where the catalogue has not changed since."""
        ids = [item.item_id for item in answer.items]
        if not ids or await self._catalogue.version(scope) == answer.catalogue_version:
            return set()
        return set(ids) - await self._catalogue.live(scope, ids)


def _impression(
    scope: TenantScope,
    request: RecommendRequest | RecommendBody,
    found: Recommendations,
    *,
    keep_request: bool = True,
) -> ImpressionRow:
    """keep_request: whether pages may follow that repeat the request; a later page has its first answer's."""
    answered_by = found.answered_by(request.algorithm)
    return ImpressionRow(
        found.recommendation_id,
        scope.tenant_id,
        request.user_id,
        answered_by,
        found.release,
        found.degraded,
        [item.item_id for item in found.items],
        [round(item.score, 6) for item in found.items],
        datetime.now(UTC),
        holdout=found.holdout,
        milliseconds=None if found.seconds is None else round(found.seconds * 1_000, 3),
        scenario=None if found.scenario is None else found.scenario.id,
        scenario_version=None if found.scenario is None else found.scenario.version,
        request=kept_request(request, answered_by) if keep_request else None,
    )


def _of_scenario(answer: ScenarioAnswer, seconds: float | None = None) -> Recommendations:
    made, reason = answer.made, answer.reason
    return Recommendations(
        new_recommendation_id(),
        made.items,
        made.release,
        None if reason is None else _degraded(reason, answer.ignored),
        answer.holdout,
        seconds,
        answer.scenario,
        made.source,
    )


def _ignored(request: RecommendRequest | RecommendBody) -> list[str]:
    """What popularity ignores of a request."""
    session = request.context.session_items if request.context else []
    return [name for name, used in (("diversity", request.diversity), ("sessionItems", session)) if used]


def _degraded(reason: str, ignored: list[str]) -> str:
    return f"{reason}; ignored={','.join(ignored)}" if ignored else reason
