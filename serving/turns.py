"""Where and in which order the model server answers batches.

A batch is answered in slices of a few milliseconds in the event loop itself: to hand it to a thread and back takes as
long as to answer a query. Between two slices the loop serves probes, connections and the batches of other tenants, so
nobody waits for the whole batch of somebody else. What would hold the loop for longer goes to a thread: a release whose
queries are slow or whose speed is not known yet, and a catalogue delta.

The batches of one release are answered one after another, since a predictor answers in one thread at a time. A query
that was answered before is answered from the cache.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple
from uuid import uuid4
from weakref import WeakKeyDictionary

import msgspec

from serving.answer_cache import AnswerCache
from serving.contracts.messages import BatchRequest, BatchResponse, Query
from serving.figures import count_answers, count_batch

if TYPE_CHECKING:
    from serving.overlay import Catalogue
    from serving.predictor import Answer, Predictor

SLICE_SECONDS = 0.01
"""How long a slice is expected to hold the event loop at most."""
MAX_SLICE = 16
"""Queries of a slice: more of them gain nothing from being computed together."""
MAX_WAITING = 64
"""Batches that wait for one release. An API process has few calls in flight for a tenant, so more are a fault."""
THREADS = 2
_NEWEST_SHARE = 0.2
"""Weight of the newest slice in the mean time of a query."""

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class TooManyWaitingError(Exception):
    """More than MAX_WAITING batches wait for one release."""


class _Queue:
    """The turn and the speed of one release."""

    def __init__(self) -> None:
        self.name = uuid4().hex  # of this load of the release
        self.turn = asyncio.Lock()
        self.waiting = 0
        self.seconds: float | None = None  # mean of a query; None: none was measured yet

    def measured(self, seconds: float, n_queries: int) -> None:
        """Take the time of the newest slice into the mean.

        Of a slow release, only slices count that one query could have taken as long as: together, queries take less
        time each than alone, and would be taken for quick ones, each of which then holds the loop for too long.
        """
        if self.slow() and n_queries > 1 and seconds > SLICE_SECONDS:
            return
        each = seconds / n_queries
        self.seconds = each if self.seconds is None else self.seconds + _NEWEST_SHARE * (each - self.seconds)

    def slice_size(self) -> int:
        """Queries of the next slice. One in a thread holds nobody up, so it is as large as pays."""
        if not self.seconds or self.slow():
            return MAX_SLICE
        return min(MAX_SLICE, int(SLICE_SECONDS / self.seconds))

    def slow(self) -> bool:
        """Whether a query alone would hold the event loop for longer than a slice may."""
        return self.seconds is not None and self.seconds > SLICE_SECONDS

    def in_loop(self) -> bool:
        return self.seconds is not None and not self.slow()


class Turns:
    """One per event loop."""

    def __init__(self, cache: AnswerCache | None = None) -> None:
        """cache: of answers; None: every query is computed."""
        self._cache = cache
        self._queues: WeakKeyDictionary[Predictor, _Queue] = WeakKeyDictionary()
        self._executor = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="answer")

    async def answer(self, predictor: "Predictor", request: BatchRequest) -> BatchResponse:
        """The answer to a batch, once it is its turn. Raises TooManyWaitingError."""
        queue = self._queues.get(predictor)
        if queue is None:
            queue = self._queues[predictor] = _Queue()
        if queue.waiting > MAX_WAITING:
            raise TooManyWaitingError(f"{queue.waiting} batches wait for this release")
        queue.waiting += 1
        arrived = time.perf_counter()
        try:
            async with queue.turn:
                began = time.perf_counter()
                response = await self._answer(predictor, queue, request)
        finally:
            queue.waiting -= 1
        count_batch(len(request.queries), began - arrived, time.perf_counter() - arrived)
        return response

    async def _answer(self, predictor: "Predictor", queue: _Queue, request: BatchRequest) -> BatchResponse:
        if predictor.needs_delta(request):
            if request.delta is not None:
                await self._in_thread(predictor.lay_over, request)
            if predictor.needs_delta(request):
                return predictor.delta_needed()
        catalogue, queries = predictor.catalogue, request.queries
        if self._cache is None:
            computed = await self._compute(predictor, catalogue, queue, queries)
            failed = sum(isinstance(answer, str) for answer in computed)
            count_answers(0, len(computed) - failed, failed)
            return BatchResponse("ok", predictor.manifest.release, catalogue.version, computed)
        answers = await self._find_or_compute(self._cache, predictor, catalogue, queue, queries)
        response = BatchResponse("ok", predictor.manifest.release, catalogue.version)
        return msgspec.structs.replace(response, answers=answers)  # kept ones as MessagePack: see `items_of`

    async def _find_or_compute(
        self, cache: AnswerCache, predictor: "Predictor", catalogue: "Catalogue", queue: _Queue, queries: list[Query]
    ) -> list["Answer | msgspec.Raw"]:
        names = [cache.name(queue.name, catalogue.place, query) for query in queries]
        found = [cache.get(name) for name in names]
        missing = [index for index, answer in enumerate(found) if answer is None]
        answers: list[Answer | msgspec.Raw] = ["failed" if answer is None else answer for answer in found]
        failed = 0
        if missing:
            computed = await self._compute(predictor, catalogue, queue, [queries[index] for index in missing])
            for index, answer in zip(missing, computed, strict=True):
                answers[index] = answer
                if isinstance(answer, str):
                    failed += 1
                else:
                    cache.put(names[index], answer)
        count_answers(len(queries) - len(missing), len(missing) - failed, failed)
        return answers

    async def _compute(
        self, predictor: "Predictor", catalogue: "Catalogue", queue: _Queue, queries: list[Query]
    ) -> list["Answer"]:
        """The answers to queries, slice after slice."""
        answers: list[Answer] = []
        while len(answers) < len(queries):
            part = queries[len(answers) : len(answers) + queue.slice_size()]
            started = time.perf_counter()
            if queue.in_loop():
                answers += predictor.answer_queries(catalogue, part)
            else:
                answers += await self._in_thread(predictor.answer_queries, catalogue, part)
            queue.measured(time.perf_counter() - started, len(part))
            if len(answers) < len(queries):
                await asyncio.sleep(0)
        return answers

    async def _in_thread(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
