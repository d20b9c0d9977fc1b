"""A release whose queries are slow alone is answered by whole batches, where they cost less each."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.contracts.messages import BatchRequest, Query, RecommendQuery
from serving.overlay import Catalogue
from serving.predictor import Answer, Predictor
from serving.turns import MAX_SLICE, SLICE_SECONDS, Turns
from tests.fixtures.releases import CATALOGUE_VERSION, TENANT

pytestmark = pytest.mark.fit


class SlowPredictor(Predictor):
    """A real predictor that takes the same time for one query as for many, and notes how many it was asked."""

    asked: list[int]

    def answer_queries(self, catalogue: Catalogue, queries: Sequence[Query]) -> list[Answer]:
        time.sleep(2 * SLICE_SECONDS)
        self.asked.append(len(queries))
        return super().answer_queries(catalogue, queries)


def test_batches_of_a_slow_release_stay_whole(small_release: Path) -> None:
    predictor = SlowPredictor.load(small_release, max_events=200)
    assert isinstance(predictor, SlowPredictor)
    predictor.asked = []
    sizes = [1, *[MAX_SLICE] * 10, 1, MAX_SLICE]

    async def run() -> None:
        turns = Turns()
        for size in sizes:
            queries: list[Query] = [RecommendQuery("collaborative", 3)] * size
            response = await turns.answer(predictor, BatchRequest(TENANT, CATALOGUE_VERSION, queries))
            assert len(response.answers) == size

    asyncio.run(run())
    assert predictor.asked == sizes
