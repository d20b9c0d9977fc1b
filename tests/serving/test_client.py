"""The API's client against the real server: batches, the exchange of catalogue deltas, and a server that is down."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from pydantic import SecretStr

from configs.serving import ServingSettings
from serving.application import BatchApplication
from serving.client import ServingClient
from serving.contracts.messages import (
    CatalogueDelta,
    CataloguePlace,
    ItemChange,
    Query,
    RecommendQuery,
    ServingUnavailable,
    SimilarQuery,
)
from serving.contracts.releases import StoreListing
from serving.watch import ReleaseWatch
from tests.fixtures.model_server import ModelServer, model_server
from tests.fixtures.platform import PATIENCE_SECONDS, ROOT
from tests.fixtures.releases import CATALOGUE_VERSION, TENANT, delta, item_id, likes, publish_small
from tests.fixtures.scripted_server import running

pytestmark = pytest.mark.fit

COMEDIES = [item_id("comedy", number) for number in range(1, 5)]
PATIENCE = 1.0
QUERY = RecommendQuery("collaborative", 5, likes(*COMEDIES))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with model_server(tmp_path_factory.mktemp("state")) as server:
        publish_small(server.paths.bentoml, server.paths.root / "work")
        server.start()
        yield server


@asynccontextmanager
async def client_of(server: ModelServer, patience: float = 30.0) -> AsyncIterator[ServingClient]:
    client = ServingClient(server.settings.model_copy(update={"patience_seconds": patience}))
    try:
        yield client
    finally:
        await client.close()


async def no_delta(since: CataloguePlace) -> CatalogueDelta:
    raise AssertionError(f"asked for a delta since {since}")


def test_a_lone_query_is_answered(server: ModelServer) -> None:
    async def scenario() -> None:
        async with client_of(server) as client:
            items, release, version = await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)
            assert version == CATALOGUE_VERSION
            assert len(items) == 5
            assert release == (await client.releases())[TENANT].release

    asyncio.run(scenario())


def test_queries_that_come_while_a_call_is_in_flight_leave_together(server: ModelServer) -> None:
    async def scenario() -> list[str]:
        async with client_of(server) as client:
            traces = [f"{number:032x}" for number in range(1, 41)]
            queries = [RecommendQuery("collaborative", 3, likes(*COMEDIES), trace_id=trace) for trace in traces]
            answers = await asyncio.gather(*(ask_later(client, query) for query in queries))
            assert all(answer == answers[0] for answer in answers)
            return traces

    async def ask_later(client: ServingClient, query: RecommendQuery) -> object:
        await asyncio.sleep(int(query.trace_id, 16) * 0.0001)
        return await client.ask(TENANT, CATALOGUE_VERSION, query, no_delta)

    traces = asyncio.run(scenario())
    time.sleep(0.3)
    lines = [line for line in server.log.splitlines() if any(trace in line for trace in traces)]
    sizes = [json.loads(line)["batch"] for line in lines]
    assert len(lines) == 40
    calls = sum(1 / size for size in sizes)
    assert calls < 40
    assert max(sizes) > 1


def test_the_delta_is_read_once_for_queries_that_leave_together(server: ModelServer) -> None:
    asked: list[int] = []

    async def load_delta(since: CataloguePlace) -> CatalogueDelta:
        asked.append(since.version)
        return delta(11, ("horror-5", None, False), since=since.version)

    async def scenario() -> None:
        async with client_of(server) as client:
            queries = [SimilarQuery("horror-3", 100) for _ in range(8)]
            answers = await asyncio.gather(*(client.ask(TENANT, 11, query, load_delta) for query in queries))
            assert all("horror-5" not in {item.item_id for item in answer.items} for answer in answers)

    asyncio.run(scenario())
    assert asked == [CATALOGUE_VERSION]


def test_metadata_with_numbers_past_64_bits_travels(server: ModelServer) -> None:
    async def load_delta(since: CataloguePlace) -> CatalogueDelta:
        metadata = {"title": "horror horror3", "genres": ["horror"], "views": [2**80, -(10**400), {"deep": 10**400}]}
        return CatalogueDelta(since.version, 12, [ItemChange("large", 12, True, metadata)])

    async def scenario() -> None:
        async with client_of(server) as client:
            items, _, version = await client.ask(TENANT, 12, SimilarQuery("horror-3", 100), load_delta)
            assert version == 12
            assert "large" in {item.item_id for item in items}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("tenant", "query", "reason"),
    [
        ("nobody", QUERY, "no-release"),
        (TENANT, RecommendQuery("deep-learning", 3), "no-model"),
        (TENANT, SimilarQuery("unheard-of", 3), "no-model"),
    ],
)
def test_without_a_model_the_reason_is_named_and_others_are_served(
    server: ModelServer, tenant: str, query: Query, reason: str
) -> None:
    async def scenario() -> None:
        async with client_of(server) as client:
            with pytest.raises(ServingUnavailable) as caught:
                await client.ask(tenant, CATALOGUE_VERSION, query, no_delta)
            assert caught.value.reason == reason
            answer = await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)
            assert answer.items

    asyncio.run(scenario())


def test_what_reading_the_delta_raises_reaches_the_caller_and_nobody_else(server: ModelServer) -> None:
    async def failing(since: CataloguePlace) -> CatalogueDelta:
        raise ConnectionError("the database is away")

    async def scenario() -> None:
        async with client_of(server) as client:
            with pytest.raises(ConnectionError, match="the database is away"):
                await client.ask(TENANT, 1_000, QUERY, failing)
            answer = await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)
            assert answer.items

    asyncio.run(scenario())


def test_a_caller_that_goes_away_spoils_nothing(server: ModelServer) -> None:
    async def scenario() -> None:
        async with client_of(server) as client:
            tasks = [asyncio.create_task(client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)) for _ in range(6)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
            assert all(len(result.items) == 5 for result in results[1::2])  # type: ignore[union-attr]

    asyncio.run(scenario())


async def unavailable(client: ServingClient) -> float:
    """Seconds until the client says that the server is away."""
    started = time.perf_counter()
    with pytest.raises(ServingUnavailable) as caught:
        await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)
    assert caught.value.reason == "serving-unavailable"
    return time.perf_counter() - started


async def back(client: ServingClient) -> None:
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while True:
        try:
            await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)
            return
        except ServingUnavailable:
            assert time.perf_counter() < deadline, "it is not asked again"
            await asyncio.sleep(0.02)


def outage(server: ModelServer, lose: Callable[[], None], give_back: Callable[[], object], first: float) -> None:
    async def scenario() -> None:
        async with client_of(server, patience=PATIENCE) as client:
            await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)
            lose()
            waited = await asyncio.gather(*(unavailable(client) for _ in range(20)))
            assert max(waited) < first
            later = sorted([await unavailable(client) for _ in range(100)])
            assert later[50] < PATIENCE / 2  # they do not wait for the server again
            await asyncio.to_thread(give_back)
            await back(client)

    asyncio.run(scenario())


def test_a_hung_server_costs_its_callers_their_patience_and_later_ones_nothing_until_it_wakes(
    server: ModelServer,
) -> None:
    outage(
        server,
        lambda: server.signal_worker(signal.SIGSTOP),
        lambda: server.signal_worker(signal.SIGCONT),
        first=5 * PATIENCE,  # twenty wait together
    )


def test_a_dead_server_costs_nothing_and_is_found_again(server: ModelServer) -> None:
    outage(server, server.kill, server.start, first=PATIENCE)


def test_importing_the_client_loads_no_model_library() -> None:
    absent = ("torch", "bentoml", "mlflow", "dagster", "numpy", "pyarrow", "scipy")
    code = f"import sys, serving.client; print([name for name in {absent!r} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    )
    assert run.stdout.strip() == "[]"


def test_a_server_that_answers_in_another_form_is_unavailable() -> None:
    """Another program on the port, or a model server of another version, costs the models and not the answer."""

    async def scenario() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = next(
                        (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line),
                        0,
                    )
                    await reader.readexactly(length)
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nnothing")

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            client = ServingClient(ServingSettings(url=f"http://127.0.0.1:{port}"))
            try:
                for _ in range(3):
                    with pytest.raises(ServingUnavailable, match="serving-unavailable"):
                        await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)
                    await asyncio.sleep(0.3)  # the probe meets the same answer meanwhile
                with pytest.raises(ServingUnavailable):
                    await client.releases()
            finally:
                await client.close()
                other.close()

    asyncio.run(scenario())


def test_a_server_whose_releases_are_not_loaded_yet_is_not_back() -> None:
    """Otherwise callers would wait for a server that is busy loading."""

    async def scenario() -> None:
        watch = ReleaseWatch(lambda: StoreListing({}), cast(Any, None), 60)
        settings = ServingSettings(secret=SecretStr("secret of these tests"), patience_seconds=30)
        application = BatchApplication()
        application.open(watch, settings.authorization)
        async with running(application) as url:
            client = ServingClient(settings.model_copy(update={"url": url}))
            try:
                with pytest.raises(ServingUnavailable, match="not loaded yet"):
                    await client.releases()
                watch.refresh()
                assert await client.releases() == {}
            finally:
                await client.close()

    asyncio.run(scenario())
