"""The API's way to the model server: queries are gathered into batches, and a dead server costs callers nothing.

Per tenant one call is in flight. A query that finds its tenant idle leaves at once; those that come while a call is
in flight leave together when it returns. So a lone caller waits for nobody, and a crowd shares the cost of a call.

When a call fails, every waiting query fails with it and further ones fail at once, until a probe in the background
has seen the server answer a batch again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import aiohttp
import msgspec
import structlog

from configs.settings import ServingSettings
from serving.contracts.messages import (
    BATCH_PATH,
    MEDIA_TYPE,
    RELEASES_PATH,
    Answer,
    BatchRequest,
    BatchResponse,
    CatalogueDelta,
    Query,
    ReleaseInfo,
)

MAX_BATCH = 64
MAX_HANDSHAKES = 3
"""A release may be swapped between the question for a delta and its answer; more than this is no coincidence."""
PROBE_SECONDS = 0.25
MAX_INTEGER = 2**64 - 1
MIN_INTEGER = -(2**63)

LoadDelta = Callable[[int], Awaitable[CatalogueDelta]]
Reason = Literal["serving-unavailable", "no-release", "no-model"]

log = structlog.get_logger(__name__)


class ServingUnavailable(Exception):  # noqa: N818 - a state of the world, which callers answer with a fallback
    """No model can answer now; `reason` is what a degraded answer says."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Reason = reason


class Reply(NamedTuple):
    """An answer with what gave it."""

    answer: Answer
    release: str
    catalogue_version: int  # what of the catalogue it knew: everything up to this version


@dataclass
class _Waiting:
    """A query that waits for its answer."""

    query: Query
    catalogue_version: int
    load_delta: LoadDelta
    answer: asyncio.Future[Reply]


@dataclass
class _Lane:
    """What one tenant has to ask."""

    waiting: list[_Waiting] = field(default_factory=list)
    running: asyncio.Task[None] | None = None


class ServingClient:
    """One per event loop; connects at the first question. `close` it in the end."""

    def __init__(self, settings: ServingSettings) -> None:
        self._url = settings.url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=settings.timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._lanes: dict[str, _Lane] = {}
        self._probe: asyncio.Task[None] | None = None  # runs while the server is taken for dead
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(BatchResponse).decode

    async def ask(self, tenant_id: str, catalogue_version: int, query: Query, load_delta: LoadDelta) -> Reply:
        """The answer to one query.

        Args:
            tenant_id: whose catalogue and models.
            catalogue_version: as the database has it now; the answer is laid over that version or a newer one.
            query: `RecommendQuery` or `SimilarQuery`.
            load_delta: reads the catalogue delta since a version from the database; called where the server lacks
                the version, for one of the queries that are asked together.

        The answer's `error` is None or "unknown_item". Raises ServingUnavailable where no model can answer, and what
        `load_delta` raises.
        """
        if self._probe is not None:
            raise ServingUnavailable("serving-unavailable", "waiting for the model server to come back")
        lane = self._lanes.setdefault(tenant_id, _Lane())
        waiting = _Waiting(query, catalogue_version, load_delta, asyncio.get_running_loop().create_future())
        lane.waiting.append(waiting)
        if lane.running is None:
            lane.running = asyncio.create_task(self._run(tenant_id, lane))
        return await waiting.answer

    async def releases(self) -> dict[str, ReleaseInfo]:
        """What the server has loaded, by tenant. Raises ServingUnavailable."""
        body = await self._call("GET", RELEASES_PATH, None)
        return msgspec.json.decode(body, type=dict[str, ReleaseInfo])

    async def close(self) -> None:
        """End what runs and close the connections; queries that still wait raise ServingUnavailable."""
        started = [*(lane.running for lane in self._lanes.values()), self._probe]
        tasks = [task for task in started if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _run(self, tenant_id: str, lane: _Lane) -> None:
        """Send what waits, batch after batch, until nothing does."""
        try:
            while lane.waiting:
                batch = [waiting for waiting in lane.waiting[:MAX_BATCH] if not waiting.answer.done()]
                del lane.waiting[:MAX_BATCH]
                if batch:
                    await self._answer(tenant_id, batch)
                if self._probe is not None:
                    _fail(lane.waiting, ServingUnavailable("serving-unavailable", "the call before this one failed"))
                    lane.waiting.clear()
        finally:
            _fail(lane.waiting, ServingUnavailable("serving-unavailable", "closing"))  # a cancelled run leaves some
            del self._lanes[tenant_id]

    async def _answer(self, tenant_id: str, batch: list[_Waiting]) -> None:
        """Ask one batch and hand the answers, or the failure, to those who wait."""
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
        for waiting, answer in zip(batch, response.answers, strict=True):
            if waiting.answer.done():
                continue  # its caller went away
            if answer.error == "no_model":
                waiting.answer.set_exception(ServingUnavailable("no-model", "the release has no such model"))
            elif answer.error == "failed":
                waiting.answer.set_exception(ServingUnavailable("serving-unavailable", "the query failed there"))
            else:
                waiting.answer.set_result(Reply(answer, response.release, response.base_version))

    async def _exchange(self, tenant_id: str, batch: list[_Waiting]) -> BatchResponse:
        """One batch with its catalogue handshake."""
        newest = max(batch, key=_version)
        version = newest.catalogue_version
        queries = [waiting.query for waiting in batch]
        delta = None
        for _ in range(MAX_HANDSHAKES):
            body = self._pack(BatchRequest(tenant_id, version, queries, delta))
            response = self._decode(await self._call("POST", BATCH_PATH, body))
            if response.status == "no_release":
                raise ServingUnavailable("no-release")
            if response.status == "ok":
                return response
            # One of those who still wait reads it: what a caller that went away reads with may be closed.
            reader = max((each for each in batch if not each.answer.done()), key=_version, default=newest)
            delta = await reader.load_delta(response.base_version)
        raise ServingUnavailable("serving-unavailable", f"no catalogue delta fits after {MAX_HANDSHAKES} attempts")

    async def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        """One HTTP exchange. Raises ServingUnavailable where it fails or is refused."""
        try:
            try:
                return await self._send(method, path, body)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # A kept connection may close under us; whether the server is there, a new one tells.
                return await self._send(method, path, body)
        except TimeoutError as error:
            raise ServingUnavailable("serving-unavailable", f"no answer within {self._timeout.total} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServingUnavailable("serving-unavailable", str(error) or repr(error)) from error

    async def _send(self, method: str, path: str, body: bytes | None) -> bytes:
        if self._session is None:
            # The server keeps idle connections for longer than this, so that it rarely closes one in use.
            connector = aiohttp.TCPConnector(limit=64, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, auto_decompress=False, trust_env=False
            )
        async with self._session.request(
            method, self._url + path, data=body, headers={"content-type": MEDIA_TYPE}
        ) as response:
            content = await response.read()
            if response.status != 200:
                raise ServingUnavailable("serving-unavailable", f"status {response.status}: {content[:200]!r}")
            return content

    def _start_probe(self, error: ServingUnavailable) -> None:
        if self._probe is None:
            log.warning("model server lost", reason=str(error), url=self._url)
            self._probe = asyncio.create_task(self._watch_for_return())

    async def _watch_for_return(self) -> None:
        """Send empty batches, which pass through all of the server's machinery, until one is answered."""
        empty = self._encode(BatchRequest("", 0, []))
        while True:
            try:
                await self._call("POST", BATCH_PATH, empty)
            except ServingUnavailable:
                await asyncio.sleep(PROBE_SECONDS)
                continue
            log.info("model server is back", url=self._url)
            self._probe = None
            return

    def _pack(self, request: BatchRequest) -> bytes:
        try:
            return self._encode(request)
        except OverflowError:  # some metadata holds an integer that MessagePack has no room for
            return self._encode(_fitting(msgspec.to_builtins(request)))


def _version(waiting: _Waiting) -> int:
    return waiting.catalogue_version


def _fail(waiting: list[_Waiting], error: Exception) -> None:
    for each in waiting:
        if not each.answer.done():
            each.answer.set_exception(error)


def _fitting(value: Any) -> Any:
    """A copy in which integers past 64 bits are floats, the largest finite ones past their range."""
    if isinstance(value, dict):
        return {key: _fitting(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_fitting(part) for part in value]
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        limit = int(1.7976931348623157e308)
        return float(max(-limit, min(limit, value)))
    return value
