"""The API's client of the model server. It sends concurrent queries together, and fails fast where asking is in vain.

Batches. A tenant has at most one call in flight, so no tenant's calls wait for another's. A query that finds none in
flight is sent at once; queries that come while one is in flight wait, and are sent together when it returns. So a
single caller never waits for others, and many callers share the cost of a call.

Patience. A caller that has waited for the tenant's patience gets ServingUnavailable. A call that takes longer than that
is late: those that wait behind it get ServingUnavailable too, and so do further ones. The call itself goes on. Once it
is answered, queries are sent again.

Failures. When a call fails, every waiting query of the tenant fails with it, and the tenant's breaker opens
(`serving/tenant_health.py`). Where the server itself is away, everybody's queries fail at once
(`serving/reachability.py`). So neither a dead server nor a tenant's trouble costs callers time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import structlog

from configs import spans
from configs.serving import ServingSettings
from serving.contracts.messages import (
    BatchRequest,
    BatchResponse,
    CatalogueDelta,
    CataloguePlace,
    Query,
    QueryError,
    RankedItem,
    ReleaseInfo,
    ServingUnavailable,
)
from serving.reachability import Reachability
from serving.tenant_health import TenantHealth
from serving.transport import ServerAway, ServingTransport

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

MAX_BATCH = 64
MAX_HANDSHAKES = 3
"""The server may swap a release after it asked for a delta, and then asks again. Three times in a row is a fault."""
MAX_WAITING = 1_024
"""Queries of one tenant that wait. More cannot be answered in time, so they fail at once."""
HELD_UP_SECONDS = 0.01
"""A timer that fires later than this tells that this process was held up, not the server."""
TIMER_SECONDS = 0.002
"""Queries that were asked within this time end their wait together."""

LoadDelta = Callable[[CataloguePlace], Awaitable[CatalogueDelta]]

log = structlog.get_logger(__name__)


class ModelAnswer(NamedTuple):
    """The items of one query, best first."""

    items: list[RankedItem]
    release: str
    catalogue_version: int  # the answer knows every change of the catalogue up to this version


@dataclass
class _PendingQuery:
    """A query whose caller waits for the answer."""

    query: Query
    catalogue_version: int
    load_delta: LoadDelta
    answer: asyncio.Future[ModelAnswer]
    asked: float  # by the clock of the event loop
    span: "SpanContext | None"  # of its caller, where that is recorded


@dataclass
class _TenantQueue:
    """The queries of one tenant that are not sent yet, and the task that sends them."""

    waiting: list[_PendingQuery] = field(default_factory=list)
    sent: list[_PendingQuery] = field(default_factory=list)  # of the call in flight
    sent_at: float = 0.0
    sender: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None  # runs while somebody waits
    late: bool = False  # the call in flight has taken longer than its callers wait


class ServingClient:
    """One per event loop. It connects at the first query; call `close` in the end."""

    def __init__(self, settings: ServingSettings) -> None:
        self._transport = ServingTransport(settings)
        self._queues: dict[str, _TenantQueue] = {}  # of the tenants that have a call in flight
        self._health = TenantHealth(settings.patience_seconds, settings.max_patience_seconds)
        self._reachability = Reachability(self._transport.check, self._health.forgive_all)

    async def ask(self, tenant_id: str, catalogue_version: int, query: Query, load_delta: LoadDelta) -> ModelAnswer:
        """The answer to one query.

        Args:
            tenant_id: whose models and catalogue.
            catalogue_version: the version that the database has now. The answer knows this version or a newer one.
            query: `RecommendQuery` or `SimilarQuery`.
            load_delta: reads the catalogue delta since a place from the database, or its next part where it is large.
                Where the server lacks the version, it is called for one of the queries of the batch.

        Raises ServingUnavailable where no model can answer, and whatever `load_delta` raises.
        """
        with spans.part("ask the models"):
            return await self._ask(tenant_id, catalogue_version, query, load_delta)

    async def _ask(self, tenant_id: str, catalogue_version: int, query: Query, load_delta: LoadDelta) -> ModelAnswer:
        if self._reachability.away:
            raise ServingUnavailable("serving-unavailable", "waiting for the model server to come back")
        queue = self._queues.get(tenant_id)
        if queue is not None and (queue.late or len(queue.waiting) >= MAX_WAITING):
            raise ServingUnavailable("serving-unavailable", "earlier queries of the tenant have no answer yet")
        if not self._health.admits(tenant_id):
            raise ServingUnavailable("serving-unavailable", "a call of the tenant has failed a moment ago")
        if queue is None:
            queue = self._queues[tenant_id] = _TenantQueue()
        loop = asyncio.get_running_loop()
        pending = _PendingQuery(
            query, catalogue_version, load_delta, loop.create_future(), loop.time(), spans.current_context()
        )
        queue.waiting.append(pending)
        if queue.timer is None:
            self._set_timer(tenant_id, queue, pending)
        if queue.sender is None:
            queue.sender = asyncio.create_task(self._send_waiting(tenant_id, queue))
        return await pending.answer

    async def releases(self) -> dict[str, ReleaseInfo]:
        """The releases that the server has loaded, by tenant. Raises ServingUnavailable."""
        return await self._transport.releases()

    async def close(self) -> None:
        """Cancel what runs and close the connections. Queries that still wait raise ServingUnavailable."""
        tasks = [queue.sender for queue in self._queues.values() if queue.sender is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._reachability.close()
        await self._transport.close()

    async def _send_waiting(self, tenant_id: str, queue: _TenantQueue) -> None:
        """Send batch after batch until no query of the tenant waits."""
        try:
            while queue.waiting:
                batch = [pending for pending in queue.waiting[:MAX_BATCH] if not pending.answer.done()]
                del queue.waiting[:MAX_BATCH]
                if batch and not await self._answer(tenant_id, queue, batch):
                    _fail(queue.waiting, ServingUnavailable("serving-unavailable", "the call before this one failed"))
                    queue.waiting.clear()
        finally:
            _fail(queue.waiting, ServingUnavailable("serving-unavailable", "closing"))  # where this task was cancelled
            if queue.timer is not None:
                queue.timer.cancel()
            del self._queues[tenant_id]
            self._health.withdraw(tenant_id)

    async def _answer(self, tenant_id: str, queue: _TenantQueue, batch: list[_PendingQuery]) -> bool:
        """Send one batch and give each caller its answer, or the failure. Returns whether the models can be asked."""
        clock = asyncio.get_running_loop().time
        started = queue.sent_at = clock()
        queue.sent = batch
        try:
            with spans.part_for(
                "send a batch", [pending.span for pending in batch if pending.span is not None]
            ) as span:
                response = await self._exchange(tenant_id, batch, span)
        except asyncio.CancelledError:
            _fail(batch, ServingUnavailable("serving-unavailable", "closing"))
            raise
        except ServingUnavailable as error:
            _fail(batch, error)
            if error.reason == "serving-unavailable":
                self._failed(tenant_id, error)
                return False
            self._health.answered(tenant_id, clock() - started)
        except Exception as error:  # reading the delta failed, which says nothing about the models
            if all(pending.answer.done() for pending in batch):
                log.warning("catalogue delta not read", tenant_id=tenant_id, error=repr(error))
            _fail(batch, error)
        else:
            self._health.answered(tenant_id, clock() - started)
            _deliver(batch, response)
        finally:
            queue.sent, queue.late = [], False
        return True

    def _set_timer(self, tenant_id: str, queue: _TenantQueue, oldest: _PendingQuery) -> None:
        """End the wait of the oldest query when its caller's patience is over, and of the next ones in turn.

        Where this process was held up meanwhile, an answer may lie unread in the socket. So the time by which the timer
        is late is granted once more.
        """
        loop = asyncio.get_running_loop()
        due = oldest.asked + self._health.patience(tenant_id)

        def fire() -> None:
            held_up = loop.time() - due
            if held_up > HELD_UP_SECONDS:
                queue.timer = loop.call_later(held_up, self._expire, tenant_id, queue, due)
            else:
                self._expire(tenant_id, queue, due)

        queue.timer = loop.call_at(due, fire)

    def _expire(self, tenant_id: str, queue: _TenantQueue, due: float) -> None:
        """Fail the queries that were asked a patience before `due`; all where the call in flight is that old."""
        queue.timer = None
        patience = self._health.patience(tenant_id)
        pending = [each for each in [*queue.sent, *queue.waiting] if not each.answer.done()]
        latest = due - patience + TIMER_SECONDS
        queue.late = bool(queue.sent) and queue.sent_at <= latest
        expired = pending if queue.late else [each for each in pending if each.asked <= latest]
        _fail(expired, ServingUnavailable("serving-unavailable", f"no answer within {patience:.3f} s"))
        if queue.late:
            queue.waiting.clear()
            log.warning("model server late", tenant_id=tenant_id, seconds=round(patience, 3), queries=len(expired))
            self._reachability.suspect()
        elif len(expired) < len(pending):
            oldest = min((each for each in pending if each.asked > latest), key=lambda each: each.asked)
            self._set_timer(tenant_id, queue, oldest)

    def _failed(self, tenant_id: str, error: ServingUnavailable) -> None:
        if isinstance(error, ServerAway):
            self._reachability.lost(error)
            return
        in_a_row = self._health.failed(tenant_id)
        log.warning("call of a tenant failed", tenant_id=tenant_id, reason=str(error), in_a_row=in_a_row)
        self._reachability.suspect()

    async def _exchange(
        self, tenant_id: str, batch: list[_PendingQuery], span: "SpanContext | None" = None
    ) -> BatchResponse:
        """Send one batch, again with a catalogue delta where the server asks for one."""
        traceparent = None if span is None else spans.traceparent_of(span)
        newest = max(batch, key=_catalogue_version)
        queries = [pending.query for pending in batch]
        delta = None
        for _ in range(MAX_HANDSHAKES):
            response = await self._transport.batch(
                BatchRequest(tenant_id, newest.catalogue_version, queries, delta), traceparent
            )
            if response.status == "no_release":
                raise ServingUnavailable("no-release")
            if response.status == "ok":
                if len(response.answers) != len(queries):
                    raise ServingUnavailable("serving-unavailable", "not as many answers as queries")
                return response
            delta = await self._last_part(tenant_id, batch, response)
        raise ServingUnavailable("serving-unavailable", f"no catalogue delta fits after {MAX_HANDSHAKES} attempts")

    async def _last_part(
        self, tenant_id: str, batch: list[_PendingQuery], response: BatchResponse
    ) -> CatalogueDelta | None:
        """Read the delta that the server needs, and send all of its parts but the last. Returns the last.

        Returns None where the server does not take a part, as where it has swapped the release meanwhile. Where another
        process sends the same delta, each goes on from where both have come.
        """
        place = _place(response)
        in_parts = self._transport.takes_parts
        parts: list[CatalogueDelta] = []
        while True:
            # A caller that went away may have closed what its `load_delta` reads with, so one that still waits is used.
            waiting = (pending for pending in batch if not pending.answer.done())
            part = await max(waiting, key=_catalogue_version, default=batch[0]).load_delta(place)
            if not in_parts:
                parts.append(part)
            if part.complete:
                break
            if in_parts:
                taken = await self._transport.batch(BatchRequest(tenant_id, part.version, [], part))
                if taken.status == "no_release":
                    raise ServingUnavailable("no-release")
                if _place(taken).order <= place.order:
                    return None
                place = _place(taken)
            else:
                place = part.end
        if not parts:
            return part
        return CatalogueDelta(parts[0].since, part.version, [change for each in parts for change in each.changes])


def _deliver(batch: list[_PendingQuery], response: BatchResponse) -> None:
    for pending, answer in zip(batch, response.answers, strict=True):
        if pending.answer.done():
            continue  # its caller went away
        if isinstance(answer, str):
            pending.answer.set_exception(_unavailable(answer))
        else:
            pending.answer.set_result(ModelAnswer(answer, response.release, response.catalogue_version))


def _place(response: BatchResponse) -> CataloguePlace:
    return response.place or CataloguePlace(response.catalogue_version)


def _catalogue_version(pending: _PendingQuery) -> int:
    return pending.catalogue_version


def _fail(batch: list[_PendingQuery], error: Exception) -> None:
    for pending in batch:
        if not pending.answer.done():
            pending.answer.set_exception(error)


def _unavailable(error: QueryError) -> ServingUnavailable:
    match error:
        case "no_model":
            return ServingUnavailable("no-model", "the release has no such model")
        case "unknown_item":  # the database has the item, and the release does not know it yet
            return ServingUnavailable("no-model", "the release does not know the item")
        case "failed":
            return ServingUnavailable("serving-unavailable", "the query failed in the model server")
