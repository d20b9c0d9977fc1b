"""The order in which batches are answered: nobody waits for the whole batch of another tenant."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving import turns
from serving.contracts.messages import BatchRequest, Query, RecommendQuery
from serving.overlay import Catalogue
from serving.predictor import Answer, Predictor
from serving.turns import MAX_SLICE, TooManyWaitingError, Turns
from tests.fixtures.releases import CATALOGUE_VERSION, TENANT

pytestmark = pytest.mark.fit

QUERY = RecommendQuery("collaborative", 3)


class NotedPredictor(Predictor):
    """A real predictor that notes the sizes of the slices it answers, and may be slow."""

    seconds = 0.0
    name = ""
    noted: list[tuple[str, int]]

    def answer_queries(self, catalogue: Catalogue, queries: Sequence[Query]) -> list[Answer]:
        time.sleep(self.seconds)
        answers = super().answer_queries(catalogue, queries)
        self.noted.append((self.name, len(queries)))
        return answers


@pytest.fixture
def noted() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def load(small_release: Path, noted: list[tuple[str, int]]):
    def of(name: str, seconds: float = 0.0) -> NotedPredictor:
        predictor = NotedPredictor.load(small_release, max_events=200)
        assert isinstance(predictor, NotedPredictor)
        predictor.name, predictor.seconds, predictor.noted = name, seconds, noted
        return predictor

    return of


def batch(n: int) -> BatchRequest:
    return BatchRequest(TENANT, CATALOGUE_VERSION, [QUERY] * n)


def test_a_small_batch_is_answered_between_the_slices_of_a_large_one(load, noted) -> None:
    large, small = load("large"), load("small")

    async def run() -> None:
        answering = Turns()
        await answering.answer(large, batch(1))  # their speed is measured
        await answering.answer(small, batch(1))
        noted.clear()
        responses = await asyncio.gather(answering.answer(large, batch(60)), answering.answer(small, batch(2)))
        assert [len(response.answers) for response in responses] == [60, 2]

    asyncio.run(run())
    assert noted.index(("small", 2)) < len(noted) - 1
    assert max(size for _, size in noted) <= MAX_SLICE


def test_a_slow_release_does_not_hold_the_loop(load, noted) -> None:
    slow, quick = load("slow", seconds=0.3), load("quick")

    async def run() -> None:
        answering = Turns()
        waiting = asyncio.create_task(answering.answer(slow, batch(2)))
        await asyncio.sleep(0)
        await answering.answer(quick, batch(1))
        assert not waiting.done()
        await waiting

    asyncio.run(run())
    assert noted[0] == ("quick", 1)


def test_batches_of_one_release_keep_their_order_and_their_number_is_bounded(
    load, noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING", 2)
    predictor = load("one", seconds=0.05)

    async def run() -> list[object]:
        answering = Turns()
        return await asyncio.gather(
            *(answering.answer(predictor, batch(n)) for n in (1, 2, 3, 4)), return_exceptions=True
        )

    *answered, refused = asyncio.run(run())
    assert isinstance(refused, TooManyWaitingError)
    assert len(answered) == 3
    assert [size for _, size in noted] == [1, 2, 3]
