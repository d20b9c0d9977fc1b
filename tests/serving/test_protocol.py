"""API and model server of neighbouring versions understand each other, so that either may be upgraded first."""

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from pydantic import SecretStr

from configs.serving import ServingSettings
from serving.application import BatchApplication
from serving.client import ServingClient
from serving.contracts.filters import parse_filter
from serving.contracts.histories import pack_history
from serving.contracts.messages import (
    BatchRequest,
    BatchResponse,
    CatalogueDelta,
    CataloguePlace,
    HistoryEvent,
    ItemChange,
    RankedItem,
    RecommendQuery,
    SimilarQuery,
)
from serving.contracts.protocol import NEWEST, SPOKEN, VERSION_HEADER, agreed_codec
from serving.contracts.releases import StoreListing
from serving.contracts.version_1 import VERSION_1
from serving.predictor import Predictor
from serving.watch import ReleaseWatch
from tests.fixtures.releases import CATALOGUE_VERSION, TENANT, delta, item_id, likes
from tests.fixtures.scripted_server import running

SETTINGS = ServingSettings(
    url="http://127.0.0.1:1", patience_seconds=30, timeout_seconds=30, secret=SecretStr("secret of these tests")
)
RECORDED = Path(__file__).resolve().parents[1] / "fixtures" / "protocol" / "version_1"
HISTORY = pack_history(
    [
        HistoryEvent("film-1", "view", 0.25, 1_700_000_000_000_000),
        HistoryEvent("fïlm-2", "purchase", 1.0, 1_700_000_001_000_000),
    ]
)
FILTER = parse_filter({"genre": {"$in": ["drama", None, 3]}, "$not": {"year": {"$lt": 1990}}})
REQUEST = BatchRequest(
    "films",
    9,
    [
        RecommendQuery("hybrid", 10, HISTORY, ["film-9"], FILTER, 0.25, "a" * 32),
        RecommendQuery("collaborative", 1),
        SimilarQuery("film-1", 5, ["film-2"], None, "b" * 32),
    ],
    CatalogueDelta(
        7,
        9,
        [
            ItemChange("film-3", 8, True, {"title": "Three", "tags": ["x", 1, None, True], "year": 1999}),
            ItemChange("film-4", 9, False, None),
        ],
    ),
)
RELEASE = "20261128-010203-000004"
RESPONSES = {
    "answers": BatchResponse(
        "ok",
        RELEASE,
        9,
        [
            [
                RankedItem("film-3", 0.75, "collaborative", "Because you watched", ["film-1"]),
                RankedItem("film-5", 0.5, "hybrid", "", []),
            ],
            "no_model",
            [],
        ],
    ),
    "delta_needed": BatchResponse("delta_needed", RELEASE, 7),
    "no_release": BatchResponse("no_release"),
}
REQUESTS = {"request": REQUEST, "probe": BatchRequest("", 0, [])}
QUERY = RecommendQuery("collaborative", 5, likes(*(item_id("comedy", number) for number in range(1, 5))))


def recorded(name: str) -> bytes:
    return (RECORDED / f"{name}.msgpack").read_bytes()


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_of_version_1_are_read_and_written_as_they_were_recorded(name: str) -> None:
    assert VERSION_1.decode_request(recorded(name)) == REQUESTS[name]
    assert VERSION_1.encode_request(REQUESTS[name]) == recorded(name)


@pytest.mark.parametrize("name", RESPONSES)
def test_answers_of_version_1_are_read_and_written_as_they_were_recorded(name: str) -> None:
    assert VERSION_1.decode_response(recorded(name)) == RESPONSES[name]
    assert VERSION_1.encode_response(RESPONSES[name]) == recorded(name)


@pytest.mark.parametrize("version", SPOKEN)
def test_every_version_carries_every_message(version: int) -> None:
    codec = SPOKEN[version]
    for request in REQUESTS.values():
        assert codec.decode_request(codec.encode_request(request)) == request
    for response in RESPONSES.values():
        assert codec.decode_response(codec.encode_response(response)) == response


def test_the_newest_version_and_the_one_before_are_spoken() -> None:
    assert {NEWEST - 1, NEWEST} <= SPOKEN.keys()
    assert len({codec.media_type for codec in SPOKEN.values()}) == len(SPOKEN)


@pytest.mark.parametrize(
    ("said", "version"),
    [(None, 1), ("1", 1), (str(NEWEST), NEWEST), (str(NEWEST + 1), NEWEST), ("9" * 5_000, NEWEST)],
)
def test_both_sides_speak_the_newest_version_that_both_know(said: str | None, version: int) -> None:
    assert agreed_codec(said) is SPOKEN[version]


@pytest.mark.parametrize("said", ["", "two", "-1", "0", "²"])
def test_a_header_that_names_no_version_agrees_on_none(said: str) -> None:
    assert agreed_codec(said) is None


class Installation:
    """A model server in this process whose version can be changed while it runs, as an upgrade does."""

    def __init__(self, predictor: Predictor) -> None:
        self.version = NEWEST
        self.seen: list[str] = []  # media types of the batches that came
        self._application = BatchApplication()
        watch = ReleaseWatch(lambda: StoreListing({TENANT: ["one"]}), lambda tenant, release: predictor, 60)
        watch.refresh()
        self._application.open(watch, SETTINGS.authorization)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        media_type = dict(scope["headers"]).get(b"content-type", b"").decode()
        self.seen.append(media_type)
        if self.version > 1:
            await self._application(scope, receive, send)
            return

        async def send_without_version(message: MutableMapping[str, Any]) -> None:
            if "headers" in message:  # servers of version 1 know no such header
                message["headers"] = [each for each in message["headers"] if each[0] != VERSION_HEADER.encode()]
            await send(message)

        if media_type != VERSION_1.media_type:  # as version 1 does: it compares the whole and does not read the body
            body = msgspec.json.encode({"type": "about:blank", "status": 415, "detail": "a batch is not that"})
            headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 415, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._application(scope, receive, send_without_version)


async def no_delta(since: CataloguePlace) -> CatalogueDelta:
    raise AssertionError(f"asked for a delta since {since}")


@pytest.mark.fit
def test_a_new_api_learns_the_version_of_an_old_server_from_one_answer_and_follows_its_upgrade(
    predictor: Predictor,
) -> None:
    async def scenario() -> None:
        installation = Installation(predictor)
        installation.version = 1
        async with running(installation) as url:
            client = ServingClient(SETTINGS.model_copy(update={"url": url}))
            try:
                for _ in range(3):
                    assert len((await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)).items) == 5
                assert installation.seen == [SPOKEN[NEWEST].media_type, *[VERSION_1.media_type] * 3]
                installation.version, installation.seen = NEWEST, []
                for _ in range(3):  # the first answer of the new server says what it speaks
                    assert len((await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)).items) == 5
                assert installation.seen == [VERSION_1.media_type, *[SPOKEN[NEWEST].media_type] * 2]
                installation.version, installation.seen = 1, []
                for _ in range(2):  # an upgrade that is taken back
                    assert len((await client.ask(TENANT, CATALOGUE_VERSION, QUERY, no_delta)).items) == 5
                assert installation.seen == [SPOKEN[NEWEST].media_type, *[VERSION_1.media_type] * 2]
            finally:
                await client.close()

    asyncio.run(scenario())


@pytest.mark.fit
def test_an_old_server_gets_its_catalogue_delta(predictor: Predictor) -> None:
    async def load_delta(since: CataloguePlace) -> CatalogueDelta:
        return delta(11, ("horror-5", None, False), since=since.version)

    async def scenario() -> None:
        installation = Installation(predictor)
        installation.version = 1
        async with running(installation) as url:
            client = ServingClient(SETTINGS.model_copy(update={"url": url}))
            try:
                answer = await client.ask(TENANT, 11, SimilarQuery("horror-3", 100), load_delta)
                assert answer.catalogue_version == 11
                assert "horror-5" not in {item.item_id for item in answer.items}
            finally:
                await client.close()

    asyncio.run(scenario())


@pytest.mark.fit
def test_an_old_api_is_answered_in_its_version_and_the_answers_are_the_same(predictor: Predictor) -> None:
    async def scenario() -> None:
        headers = {"authorization": str(SETTINGS.authorization)}
        async with running(Installation(predictor)) as url, httpx.AsyncClient(base_url=url, headers=headers) as http:
            request = BatchRequest(TENANT, CATALOGUE_VERSION, [QUERY, SimilarQuery("horror-1", 3)])
            answers = []
            for codec in SPOKEN.values():
                response = await http.post(
                    "/v1/batch", content=codec.encode_request(request), headers={"content-type": codec.media_type}
                )
                assert response.headers["content-type"] == codec.media_type
                assert response.headers[VERSION_HEADER] == str(NEWEST)
                answers.append(codec.decode_response(response.content))
            assert answers[0].status == "ok"
            assert all(answer == answers[0] for answer in answers)
            refused = await http.post(
                "/v1/batch", content=b"", headers={"content-type": "application/vnd.msgpack; version=99"}
            )
            assert refused.status_code == 415
            assert refused.headers[VERSION_HEADER] == str(NEWEST)

    asyncio.run(scenario())
