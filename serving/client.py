"""The API's client of the model server. It sends concurrent queries together, and fails fast while the server is down.

Batches. A tenant has at most one call in flight. A query that finds none in flight is sent at once; queries that come
while one is in flight wait, and are sent together when it returns. So a single caller never waits for others, and many
callers share the cost of a call.

Failures. When a call fails, every waiting query fails with it. Further queries fail at once, until a probe in the
background has seen the server answer a batch again. So a dead server costs callers no time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from configs.settings import ServingSettings
from serving.contracts.messages import (
    BatchRequest,
    BatchResponse,
    CatalogueDelta,
    Query,
    QueryError,
    RankedItem,
    ReleaseInfo,
    ServingUnavailable,
)
from serving.transport import ServingTransport

MAX_BATCH = 64
MAX_HANDSHAKES = 3
"""The server may swap a release after it asked for a delta, and then asks again. Three times in a row is a fault."""
PROBE_SECONDS = 0.25

LoadDelta = Callable[[int], Awaitable[CatalogueDelta]]

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


@dataclass
class _TenantQueue:
    """The queries of one tenant that are not sent yet, and the task that sends them."""

    waiting: list[_PendingQuery] = field(default_factory=list)
    sender: asyncio.Task[None] | None = None


class ServingClient:
    """One per event loop. It connects at the first query; call `close` in the end."""

    def __init__(self, settings: ServingSettings) -> None:
        self._transport = ServingTransport(settings)
        self._queues: dict[str, _TenantQueue] = {}
        self._probe: asyncio.Task[None] | None = None  # runs while the server is taken to be down

    async def ask(self, tenant_id: str, catalogue_version: int, query: Query, load_delta: LoadDelta) -> ModelAnswer:
        """The answer to one query.

        Args:
            tenant_id: whose models and catalogue.
            catalogue_version: the version that the database has now. The answer knows this version or a newer one.
            query: `RecommendQuery` or `SimilarQuery`.
            load_delta: reads the catalogue delta since a version from the database. Where the server lacks the
                version, it is called for one of the queries of the batch.

        Raises ServingUnavailable where no model can answer, and whatever `load_delta` raises.
        """
        if self._probe is not None:
            raise ServingUnavailable("serving-unavailable", "waiting for the model server to come back")
        queue = self._queues.setdefault(tenant_id, _TenantQueue())
        pending = _PendingQuery(query, catalogue_version, load_delta, asyncio.get_running_loop().create_future())
        queue.waiting.append(pending)
        if queue.sender is None:
            queue.sender = asyncio.create_task(self._send_waiting(tenant_id, queue))
        return await pending.answer

    async def releases(self) -> dict[str, ReleaseInfo]:
        """The releases that the server has loaded, by tenant. Raises ServingUnavailable."""
        return await self._transport.releases()

    async def close(self) -> None:
        """Cancel what runs and close the connections. Queries that still wait raise ServingUnavailable."""
        started = [*(queue.sender for queue in self._queues.values()), self._probe]
        tasks = [task for task in started if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()

    async def _send_waiting(self, tenant_id: str, queue: _TenantQueue) -> None:
        """Send batch after batch until no query of the tenant waits."""
        try:
            while queue.waiting:
                batch = [pending for pending in queue.waiting[:MAX_BATCH] if not pending.answer.done()]
                del queue.waiting[:MAX_BATCH]
                if batch:
                    await self._answer(tenant_id, batch)
                if self._probe is not None:
                    _fail(queue.waiting, ServingUnavailable("serving-unavailable", "the call before this one failed"))
                    queue.waiting.clear()
        finally:
            _fail(queue.waiting, ServingUnavailable("serving-unavailable", "closing"))  # where this task was cancelled
            del self._queues[tenant_id]

    async def _answer(self, tenant_id: str, batch: list[_PendingQuery]) -> None:
        """Send one batch and give each caller its answer, or the failure."""
        try:
            response = await self._exchange(tenant_id, batch)
        except asyncio.CancelledError:
            _fail(batch, ServingUnavailable("serving-unavailable", "closing"))
            raise
        except Exception as error:
            if isinstance(error, ServingUnavailable) and error.reason == "serving-unavailable":
                self._start_probe(error)
            _fail(batch, error)
            return
        for pending, answer in zip(batch, response.answers, strict=True):
            if pending.answer.done():
                continue  # its caller went away
            if isinstance(answer, str):
                pending.answer.set_exception(_unavailable(answer))
            else:
                pending.answer.set_result(ModelAnswer(answer, response.release, response.catalogue_version))

    async def _exchange(self, tenant_id: str, batch: list[_PendingQuery]) -> BatchResponse:
        """Send one batch, again with a catalogue delta where the server asks for one."""
        newest = max(batch, key=_catalogue_version)
        queries = [pending.query for pending in batch]
        delta = None
        for _ in range(MAX_HANDSHAKES):
            response = await self._transport.batch(BatchRequest(tenant_id, newest.catalogue_version, queries, delta))
            if response.status == "no_release":
                raise ServingUnavailable("no-release")
            if response.status == "ok":
                return response
            # A caller that went away may have closed what its `load_delta` reads with, so one that still waits is used.
            waiting = (pending for pending in batch if not pending.answer.done())
            delta = await max(waiting, key=_catalogue_version, default=newest).load_delta(response.catalogue_version)
        raise ServingUnavailable("serving-unavailable", f"no catalogue delta fits after {MAX_HANDSHAKES} attempts")

    def _start_probe(self, error: ServingUnavailable) -> None:
        if self._probe is None:
            log.warning("model server lost", reason=str(error), url=self._transport.url)
            self._probe = asyncio.create_task(self._wait_for_return())

    async def _wait_for_return(self) -> None:
        """Send an empty batch repeatedly until one is answered. It passes through the same code as any batch."""
        while True:
            try:
                await self._transport.batch(BatchRequest("", 0, []))
            except ServingUnavailable:
                await asyncio.sleep(PROBE_SECONDS)
                continue
            log.info("model server is back", url=self._transport.url)
            self._probe = None
            return


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
