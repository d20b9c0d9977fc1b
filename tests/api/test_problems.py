"""Every error is answered as a problem: one form, a trace id, and a sentence that helps."""

import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.http.problems import Conflict
from api.http.schemas import OpaqueId, PathId, Schema
from tests.api.conftest import OpenClient
from tests.fixtures.postgres import gone_away

TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Inner(Schema):
    item_id: OpaqueId


class Body(Schema):
    user_id: OpaqueId
    rows: tuple[Inner, ...] = ()
    weight: float = 0.0


def _routes(app: FastAPI) -> None:
    @app.post("/api/things")
    async def post(body: Body) -> Body:
        return body

    @app.get("/api/things/{thing}")
    async def get(thing: PathId) -> str:
        return thing

    @app.put("/api/things/{thing}")
    async def put(thing: PathId) -> None:
        raise Conflict(f"The thing {thing} is taken")

    @app.delete("/api/things/{thing}")
    async def delete(thing: PathId) -> None:
        raise ZeroDivisionError(f"secret of {thing}")

    @app.post("/api/things/batch")
    async def batch(body: dict[str, Any]) -> int:
        return len(body)


@pytest.fixture
def things(open_client: OpenClient) -> Any:
    with open_client(adapt=_routes) as client:
        yield client


def _problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "traceId"} <= set(body)
    assert body["status"] == status
    assert TRACEPARENT.fullmatch(body["traceId"])
    return body


def test_an_unknown_route_is_a_problem(things: TestClient) -> None:
    body = _problem(things.get("/api/nothing"), 404)
    assert body["type"] == "https://tools.ietf.org/html/rfc9110#section-15.5.5"
    assert body["title"] == "Not Found"


def test_a_wrong_method_names_every_right_one(things: TestClient) -> None:
    response = things.post("/api/things/1")
    _problem(response, 405)
    assert response.headers["allow"] == "DELETE, GET, PUT"


def test_an_error_that_a_service_raises_keeps_its_status_and_words(things: TestClient) -> None:
    assert _problem(things.put("/api/things/a"), 409)["detail"] == "The thing a is taken"


def test_an_unhandled_exception_is_a_500_that_gives_nothing_away(things: TestClient) -> None:
    response = things.delete("/api/things/a")
    assert _problem(response, 500)["title"] == "Internal Server Error"
    assert "secret" not in response.text
    assert response.headers["x-ratelimit-limit"] == "60"


@pytest.mark.parametrize("content", ['{"userId": ', "{]", "", '{"userId": "\\x"}'])
def test_broken_json_is_a_400_that_says_so(things: TestClient, content: str) -> None:
    response = things.post("/api/things", content=content, headers={"content-type": "application/json"})
    assert len(_problem(response, 400)["errors"]) == 1


def test_json_that_is_not_utf8_or_too_deep_is_a_400(things: TestClient) -> None:
    for content in (b'{"userId": "\xff"}', b"[" * 100_000):
        response = things.post("/api/things", content=content, headers={"content-type": "application/json"})
        _problem(response, 400)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["userId"]),
        ({"userId": "a\nb"}, ["userId"]),
        ({"userId": ""}, ["userId"]),
        ({"userId": "é" * 257}, ["userId"]),
        ({"userId": 7}, ["userId"]),
        ({"userId": "u", "rows": [{"itemId": "i"}, {}]}, ["rows.1.itemId"]),
        ({"userId": 7, "weight": "heavy"}, ["userId", "weight"]),
        ([], [""]),
    ],
)
def test_validation_is_a_400_that_names_the_fields_as_the_client_wrote_them(
    things: TestClient, body: Any, fields: list[str]
) -> None:
    problem = _problem(things.post("/api/things", json=body), 400)
    assert [error["field"] for error in problem["errors"]] == fields
    assert all(error["message"] for error in problem["errors"])


def test_numbers_that_are_none_are_refused(things: TestClient) -> None:
    for number in ("NaN", "Infinity", "1e999"):
        content = f'{{"userId": "u", "weight": {number}}}'
        response = things.post("/api/things", content=content, headers={"content-type": "application/json"})
        _problem(response, 400)


def test_ids_of_256_characters_of_any_script_are_fine(things: TestClient) -> None:
    for user in ("é" * 256, "商品", "a b/c?d#e%", "🎬"):
        assert things.post("/api/things", json={"userId": user}).json()["userId"] == user


@pytest.mark.parametrize("thing", ["a/b", "a%2Fb", "/", "a b", "商品", "a?b#c", "..a", "x/batch", "é" * 256])
def test_any_legal_id_can_stand_in_a_path(things: TestClient, thing: str) -> None:
    from urllib.parse import quote

    assert things.get(f"/api/things/{quote(thing, safe='')}").json() == thing


@pytest.mark.parametrize("segment", ["%00", "a%00b", "%FF", "%0A", "%C3%A9" * 257])
def test_an_illegal_id_in_a_path_is_a_400(things: TestClient, segment: str) -> None:
    _problem(things.get(f"/api/things/{segment}"), 400)


def test_bodies_are_bounded_by_what_is_declared_and_by_what_is_sent(things: TestClient) -> None:
    def chunks(size: int) -> Any:
        yield b'{"userId": "'
        for _ in range(size // 1024):
            yield b"x" * 1024
        yield b'"}'

    json = {"content-type": "application/json"}
    megabyte = 1024 * 1024
    _problem(things.post("/api/things", content=b"".join(chunks(2 * megabyte)), headers=json), 413)
    _problem(things.post("/api/things", content=chunks(2 * megabyte), headers=json), 413)
    _problem(things.post("/api/things", content=b"".join(chunks(2 * megabyte - 1024)), headers=json), 400)  # too long
    assert things.post("/api/things/batch", content=b"".join(chunks(15 * megabyte)), headers=json).json() == 1
    _problem(things.post("/api/things/batch", content=chunks(16 * megabyte), headers=json), 413)


def test_a_database_that_went_away_is_a_503_and_comes_back(
    open_client: OpenClient, tenants: Any, database_url: str, postgres_url: str
) -> None:
    key = tenants.key(tenants.create())
    name = database_url.rsplit("/", 1)[1]
    with open_client() as client:
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["database"]) == (200, "up")
        with gone_away(postgres_url, name):
            away = client.get("/nothing", headers=key)
            _problem(away, 503)
            assert int(away.headers["retry-after"]) > 0
            assert client.get("/health").text == "Healthy"
            down = client.get("/health/ready")
            assert (down.status_code, down.json()["database"]) == (503, "down")
        assert any(client.get("/nothing", headers=key).status_code == 404 for _ in range(50))
        assert client.get("/health/ready").json()["database"] == "up"
