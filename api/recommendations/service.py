"""`recommend` and `similar`: the user's view from the database, the model's answer, a look whether it still holds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec
import structlog

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.problems import NotFound
from api.http.tracing import trace_id
from api.items.catalogue import CatalogueReader
from api.recommendations.fallback import ALGORITHM as POPULARITY
from api.recommendations.fallback import Fallback
from api.recommendations.history import HistoryReader, UserView
from api.recommendations.impressions import ImpressionLog, Shown
from api.recommendations.schemas import RecommendRequest, SimilarRequest
from configs.settings import HistorySettings
from feature_store.interaction_types import TYPE_WEIGHTS
from serving.client import Reply, ServingClient, ServingUnavailable
from serving.contracts.filters import Filter
from serving.contracts.messages import CatalogueDelta, Event, RankedItem, RecommendQuery, SimilarQuery

SESSION_TYPE = "click"
"""A session item counts like an event of this type: the user went to it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer with what its headers say."""

    recommendation_id: UUID
    items: list[RankedItem]
    release: str | None
    degraded: str | None

    def algorithm_of(self, asked: str) -> str:
        """The family that answered: the one that was asked, unless a fallback took its place."""
        return asked if self.degraded is None else POPULARITY


class Recommender:
    """One per process."""

    def __init__(
        self,
        catalogue: CatalogueReader,
        histories: HistoryReader,
        models: ServingClient,
        fallback: Fallback,
        impressions: ImpressionLog,
        max_events: int,
    ) -> None:
        self._catalogue = catalogue
        self._histories = histories
        self._models = models
        self._fallback = fallback
        self.impressions = impressions
        self._max_events = max_events

    @classmethod
    @asynccontextmanager
    async def open(cls, pool: Pool, models: ServingClient, history: HistorySettings) -> AsyncIterator["Recommender"]:
        """A recommender over this pool; on leaving, impressions that still wait are written."""
        async with ImpressionLog(pool).running() as impressions:
            yield cls(
                CatalogueReader(pool),
                HistoryReader(pool, history),
                models,
                Fallback(pool),
                impressions,
                history.max_events,
            )

    async def recommend(
        self, scope: TenantScope, request: RecommendRequest, filter_: Filter | None, *, shown: bool = True
    ) -> Outcome:
        """Items for a user, by the model that was asked for or, labelled, by popularity.

        shown: whether somebody gets to see them, which makes an impression.
        """
        view = await self._histories.view(scope, request.user_id, request.exclude_seen)
        query = self._query(view, request, filter_)
        try:
            items, release = await self._ask(scope, view.catalogue_version, query)
            degraded = None
        except ServingUnavailable as unavailable:
            session = request.context.session_items if request.context else []
            ignored = [name for name, used in (("diversity", request.diversity), ("sessionItems", session)) if used]
            degraded, release = _label(unavailable, ignored), None
            items = await self._fallback.rank(scope, request.count, query.exclude, filter_)
        outcome = Outcome(uuid4(), items, release, degraded)
        if shown:
            self._record(scope, request, outcome)
        return outcome

    async def similar(self, scope: TenantScope, request: SimilarRequest, filter_: Filter | None) -> Outcome:
        """Items like an item. Raises NotFound where the tenant has no such item."""
        version, exists = await self._catalogue.find(scope, request.item_id)
        if not exists:
            raise NotFound("There is no such item")
        query = SimilarQuery(request.item_id, request.count, request.exclude, filter_, trace_id())
        try:
            items, release = await self._ask(scope, version, query)
            return Outcome(uuid4(), items, release, None)
        except ServingUnavailable as unavailable:
            exclude = [*request.exclude, request.item_id]
            items = await self._fallback.rank(scope, request.count, exclude, filter_)
            return Outcome(uuid4(), items, None, _label(unavailable, ["itemId"]))

    def _record(self, scope: TenantScope, request: RecommendRequest, outcome: Outcome) -> None:
        self.impressions.record(
            Shown(
                outcome.recommendation_id,
                scope.tenant_id,
                request.user_id,
                outcome.algorithm_of(request.algorithm),
                outcome.release,
                outcome.degraded,
                [item.item_id for item in outcome.items],
                [round(item.score, 6) for item in outcome.items],
                datetime.now(UTC),
            )
        )

    def _query(self, view: UserView, request: RecommendRequest, filter_: Filter | None) -> RecommendQuery:
        session = request.context.session_items if request.context else []
        history = view.events
        if session:
            now = int(datetime.now(UTC).timestamp() * 1_000_000)
            events = [Event(id_, SESSION_TYPE, TYPE_WEIGHTS[SESSION_TYPE], now) for id_ in session]
            history = [*history, *events][-self._max_events :]
        # What the session shows, its user is looking at: seen as much as anything.
        seen = [*view.seen, *session] if view.exclude_seen == "all" else view.seen
        exclude = list(dict.fromkeys([*request.exclude, *seen]))
        return RecommendQuery(
            request.algorithm, request.count, history, exclude, filter_, request.diversity, trace_id()
        )

    async def _ask(
        self, scope: TenantScope, version: int, query: RecommendQuery | SimilarQuery
    ) -> tuple[list[RankedItem], str]:
        """The model's items that may be shown at the moment after it answered; asked once more where some may not."""
        reply = await self._put(scope, version, query)
        gone = await self._gone(scope, reply)
        if not gone:
            return reply.answer.items, reply.release
        log.info("asking again: items left the catalogue meanwhile", count=len(gone))
        query = msgspec.structs.replace(query, exclude=[*query.exclude, *gone])
        reply = await self._put(scope, await self._catalogue.version(scope), query)
        gone = await self._gone(scope, reply)
        return [item for item in reply.answer.items if item.item_id not in gone], reply.release

    async def _gone(self, scope: TenantScope, reply: Reply) -> set[str]:
        """Those of the answer's items that may not be shown any more; none where the catalogue is as it was."""
        ids = [item.item_id for item in reply.answer.items]
        if not ids or await self._catalogue.version(scope) == reply.catalogue_version:
            return set()
        return set(ids) - await self._catalogue.live(scope, ids)

    async def _put(self, scope: TenantScope, version: int, query: RecommendQuery | SimilarQuery) -> Reply:
        async def load_delta(since: int) -> CatalogueDelta:
            return await self._catalogue.delta(scope, since)

        reply = await self._models.ask(scope.tenant_id, version, query, load_delta)
        if reply.answer.error is not None:  # the database knows the item, and the models do not yet
            raise ServingUnavailable("no-model", "the release does not know the item")
        return reply


def _label(unavailable: ServingUnavailable, ignored: list[str]) -> str:
    return f"{unavailable.reason}; ignored={','.join(ignored)}" if ignored else unavailable.reason
