"""Direct routes answer as FastAPI would: the same status, headers, body, log line and count, or FastAPI itself.

A body that is sent as `application/json; charset=utf-8` takes the general way, so each request can be made in both.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from pydantic import BaseModel
from starlette.middleware import Middleware
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.direct_routes import MAX_BODY_BYTES, NOT_DIRECT, DirectRoute, DirectRoutes
from api.interactions.bodies import read_interaction
from api.interactions.schemas import NewInteraction
from api.recommendations.bodies import read_recommend, read_similar
from api.recommendations.schemas import RecommendRequest, SimilarRequest
from configs.api import ApiSettings, LimitSettings
from serving.contracts.filters import parse_filter
from tests.api.conftest import OpenClient, Tenants, configuration_of, running
from tests.fixtures import nasty
from tests.fixtures.backend import Backend, running_backend
from tests.fixtures.people import person
from tests.fixtures.request_texts import request_texts
from tests.fixtures.usage import on_plan, units_of

DIRECT, GENERAL = "application/json", "application/json; charset=utf-8"
MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
FEWER = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
RECOMMEND, SIMILAR, INTERACTIONS = "/api/v1/recommend", "/api/v1/similar", "/api/v1/interactions"

recommends = request_texts(
    {"userId": '"1"', "count": "10"},
    ("algorithm", "filter", "exclude", "excludeSeen", "diversity", "context", "scenario"),
)
similars = request_texts({"itemId": '"1"', "count": "10"}, ("filter", "exclude", "scenario"))
interactions = request_texts(
    {"userId": '"1"', "itemId": '"1"', "interactionType": '"click"'},
    ("value", "timestamp", "recommendationId", "createItem"),
)
ORDINARY = {
    RECOMMEND: [
        b'{"userId":"1","count":10}',
        b'{"userId":"1","count":10,"algorithm":"deep-learning","exclude":["2"],"excludeSeen":"all","diversity":0.5}',
        b'{"userId":"1","count":1,"context":{"sessionItems":["1"]},"filter":{"year":{"$gte":1990}}}',
        b'{"userId":"1","count":10,"scenario":"front"}',
        b'{"userId":"1","count":10,"scenario":"front","diversity":0,"algorithm":"hybrid","filter":null,"exclude":["1"]}',
        b'{\n  "userId": "\\ud83c\\udfac",\n  "count": 1,\n  "excludeSeen": null,\n  "diversity": 1\n}\n',
    ],
    SIMILAR: [
        b'{"itemId":"1","count":10,"scenario":"front"}',
        b'{"itemId":"1","count":10}',
        b'{"itemId":"1","count":10,"exclude":["2"],"filter":{"a":1}}',
    ],
    INTERACTIONS: [
        b'{"userId":"1","itemId":"1","interactionType":"click"}',
        b'{"userId":"1","itemId":"1","interactionType":"like","value":0.5,"timestamp":"2025-01-15T10:30:00Z"}',
        b'{"userId":"1","itemId":"new","interactionType":"view","value":null,"createItem":true,'
        b'"recommendationId":"0198c0de-0000-7000-8000-000000000000"}',
    ],
}
"""Bodies that must be answered directly."""
READERS: dict[str, Callable[[bytes], Any]] = {
    RECOMMEND: read_recommend,
    SIMILAR: read_similar,
    INTERACTIONS: read_interaction,
}


def plain(value: Any) -> Any:
    """Dataclasses, structs and models as dictionaries; floats as their text, because -0.0 equals 0.0."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return repr(value) if isinstance(value, float) else value


def read_directly(path: str, body: bytes) -> Any:
    """The fields, or None for a body that takes the general way."""
    try:
        found = READERS[path](body)
    except NOT_DIRECT:
        return None
    return plain(found[0] if isinstance(found, tuple) else found)


@MANY
@given(body=recommends)
@example(body=b'{"userId":"\xff","userId":"1","count":10}')
@example(body=b'{"filter":{"a":"\\ud800"},"filter":null,"userId":"1","count":10}')
def test_recommend_is_read_as_its_schema_reads_it(body: bytes) -> None:
    if (read := read_directly(RECOMMEND, body)) is not None:
        request = RecommendRequest.model_validate(json.loads(body))
        unnamed = {"algorithm", "diversity"} - request.model_fields_set if request.scenario is not None else ()
        assert read == {**plain(request), **dict.fromkeys(unnamed, msgspec.UNSET)}
        assert read_recommend(body)[1] == (None if request.filter is None else parse_filter(request.filter))


@MANY
@given(body=similars)
def test_similar_is_read_as_its_schema_reads_it(body: bytes) -> None:
    if (read := read_directly(SIMILAR, body)) is not None:
        request = SimilarRequest.model_validate(json.loads(body))
        assert read == plain(request)
        assert read_similar(body)[1] == (None if request.filter is None else parse_filter(request.filter))


@MANY
@given(body=interactions)
def test_an_interaction_is_read_as_its_schema_reads_it(body: bytes) -> None:
    if (read := read_directly(INTERACTIONS, body)) is not None:
        assert read == plain(NewInteraction.model_validate(json.loads(body)))


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in ORDINARY.items() for body in bodies])
def test_ordinary_bodies_are_read_directly(path: str, body: bytes) -> None:
    assert read_directly(path, body) is not None


@dataclass
class Both:
    """A backend whose requests are sent in both ways."""

    backend: Backend
    general: list[str] = field(default_factory=list)  # paths of requests that FastAPI's router got

    def answer(self, path: str, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> Any:
        """What is observable of an answer, without what differs from one request to the next."""
        headers = {"content-type": content_type, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", **(headers or {})}
        answer = self.backend.client.post(path, content=body, headers=headers)
        text = re.sub(rf"00-{'a' * 32}-[0-9a-f]{{16}}-01", "TRACE", answer.text)
        text = re.sub(r'"interactionId":"[0-9a-f-]{36}"', "ID", text)
        text = re.sub(r'"timestamp":"20[3-9][^"]*"|"timestamp":"' + str(datetime.now(UTC).year) + '[^"]*"', "NOW", text)
        named = [(name, "*" if name in self.DIFFERENT else value) for name, value in answer.headers.multi_items()]
        return answer.status_code, [pair for pair in named if pair[0] != "content-length"], text

    DIFFERENT = ("x-recommendation-id", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after")

    def compare(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bool]:
        """The status of both answers, which must be equal, and whether the first was direct."""
        del self.general[:]
        first = self.answer(path, body, DIRECT, headers)
        direct = not self.general
        second = self.answer(path, body, GENERAL, headers)
        assert first == second, body[:300]
        return first[0], direct


class _Probe:
    """ASGI middleware inside the direct routes."""

    def __init__(self, app: ASGIApp, seen: list[str]) -> None:
        self._app, self._seen = app, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._seen.append(scope["path"])
        await self._app(scope, receive, send)


def add_scenario(backend: Backend) -> None:
    """The live scenario "front" of the tenant "shop"."""
    backend.sql(
        "WITH front AS (INSERT INTO scenarios (tenant_id, id, name, status, version, live_version) "
        "VALUES ('shop', 'front', 'front', 'live', 3, 3)) "
        "INSERT INTO scenario_versions (tenant_id, scenario_id, version, recipe) "
        """VALUES ('shop', 'front', 3, '{"source": "popular", "pins": [{"position": 1, "item": "2"}]}')"""
    )


def probing(seen: list[str]) -> Callable[[FastAPI], None]:
    return lambda app: app.user_middleware.append(Middleware(_Probe, seen=seen))


@pytest.fixture(scope="module")
def both(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Without a model server: popularity answers, so that both answers are made of the same things."""
    tenants = Tenants(module_database_url)
    key = tenants.key(tenants.create("shop"), rate_limit=0)
    seen: list[str] = []
    configuration = configuration_of(module_database_url, tmp_path_factory.mktemp("api"))
    with running(configuration, adapt=probing(seen), limits=LimitSettings(per_ip=10**9, per_jwt=10**9)) as client:
        client.headers.update(key)
        backend = Backend(client, module_database_url, "shop")
        # Popularity that is read anew between two requests would answer the second with other scores.
        client.app.state.recommendations.lists._popularity._kept._seconds = 1e9  # type: ignore[attr-defined]
        backend.add_items({"1": {"year": 1995, "genres": ["Comedy"]}, "2": {}, "🎬": {}})
        add_scenario(backend)
        yield Both(backend, seen)


@FEWER
@given(body=recommends)
def test_recommend_is_answered_alike(both: Both, body: bytes) -> None:
    both.compare(RECOMMEND, body)


@FEWER
@given(body=similars)
def test_similar_is_answered_alike(both: Both, body: bytes) -> None:
    both.compare(SIMILAR, body)


@FEWER
@given(body=interactions)
def test_interactions_are_answered_alike(both: Both, body: bytes) -> None:
    both.compare(INTERACTIONS, body)


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in ORDINARY.items() for body in bodies])
def test_ordinary_requests_are_answered_directly(both: Both, path: str, body: bytes) -> None:
    status, direct = both.compare(path, body)
    assert status in (200, 201)
    assert direct


@pytest.mark.parametrize("path", READERS)
@pytest.mark.parametrize("name", [name for name, (body, _) in nasty.BODIES.items() if len(body) < 2_000_000])
def test_bodies_that_are_none_take_the_general_way(both: Both, path: str, name: str) -> None:
    body, content_type = nasty.BODIES[name]
    if content_type == DIRECT:
        assert both.compare(path, body) == (400, False)
        return
    del both.general[:]
    headers = {"content-type": content_type} if content_type else {}
    assert both.backend.client.post(path, content=body, headers=headers).status_code == 400
    assert both.general == [path]


@pytest.mark.parametrize("path", READERS)
@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "nonsense"},
        {"X-API-Key": ""},
        {"X-API-Key": f"rk_{'x' * 43}"},
        {"Idempotency-Key": "order-4711"},
        {"Idempotency-Key": "\t"},
        {"Content-Encoding": "gzip"},
        {"Accept": "text/html"},
        {"Origin": "https://shop.example"},
    ],
    ids=str,
)
def test_headers_make_no_difference(both: Both, path: str, headers: dict[str, str]) -> None:
    body = ORDINARY[path][0]
    if "Idempotency-Key" in headers and path == INTERACTIONS:
        headers = {**headers, "Idempotency-Key": headers["Idempotency-Key"] + datetime.now(UTC).isoformat()}
        first, second = (both.answer(path, body, kind, headers) for kind in (DIRECT, GENERAL))
        assert second[:1] == first[:1]
        assert second[2] == first[2]
        return
    both.compare(path, body, headers)


@pytest.mark.parametrize("path", READERS)
@pytest.mark.parametrize("query", ["?count=1", "?userId=%00", "?a=%ff", "?", "/", "%2f"])
def test_queries_and_other_paths_make_no_difference(both: Both, path: str, query: str) -> None:
    both.compare(path + query, ORDINARY[path][0])


@pytest.mark.parametrize("path", READERS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_other_methods_are_refused_as_before(both: Both, path: str, method: str) -> None:
    answer = both.backend.client.request(method, path, headers={"content-type": DIRECT}, content=ORDINARY[path][0])
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", READERS)
def test_other_credentials_are_refused_alike(both: Both, tenants_of_both: Tenants, path: str) -> None:
    other = "write" if path != INTERACTIONS else "read"
    lacking = tenants_of_both.key("shop", scopes=(other,))
    assert both.compare(path, ORDINARY[path][0], lacking) == (403, True)
    token = person(both.backend, "ada").headers["Authorization"]
    without_key = Both(Backend(TestClient(both.backend.client.app), both.backend.url, "shop"), both.general)
    without_key.backend.client.portal = both.backend.client.portal
    assert without_key.compare(path, ORDINARY[path][0], {"Authorization": token}) == (401, True)
    assert without_key.compare(path, ORDINARY[path][0]) == (401, True)
    assert without_key.compare(path, b'{"userId": ') == (400, False)  # a body that is no JSON is refused first
    assert without_key.compare(path, b"{}") == (401, False)  # and one of another form after the credential


@pytest.fixture
def tenants_of_both(module_database_url: str) -> Tenants:
    return Tenants(module_database_url)


def test_an_unknown_item_is_a_404_either_way(both: Both) -> None:
    assert both.compare(SIMILAR, b'{"itemId":"nothing","count":1}') == (404, True)
    assert both.compare(INTERACTIONS, b'{"userId":"1","itemId":"nothing","interactionType":"view"}') == (404, True)


def test_larger_bodies_take_the_general_way(both: Both) -> None:
    body = json.dumps({"userId": "1", "count": 1, "exclude": ["x" * 200] * 400}).encode()
    assert len(body) > MAX_BODY_BYTES
    assert both.compare(RECOMMEND, body) == (200, False)


def test_a_body_in_pieces_without_a_length_takes_the_general_way(both: Both) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b'{"userId":"1",', b'"count":10}')

    del both.general[:]
    answer = both.backend.client.post(RECOMMEND, content=pieces(), headers={"content-type": DIRECT})
    assert (answer.status_code, both.general) == (200, [RECOMMEND])


def test_both_ways_cost_the_same_units(open_client: OpenClient, tenants: Tenants) -> None:
    with on_plan(open_client, tenants, "plan-growth") as backend:
        backend.add_items({"1": {}})
        add_scenario(backend)
        for expected, kind in enumerate((DIRECT, GENERAL, DIRECT), start=1):
            for path, bodies in ORDINARY.items():
                answer = backend.client.post(path, content=bodies[0], headers={"content-type": kind})
                assert answer.is_success, answer.text
                refused = backend.client.post(path, content=b"{}", headers={"content-type": kind})
                assert refused.status_code == 400
            assert units_of(backend) == 3 * expected


def test_a_spent_budget_is_a_402_either_way(open_client: OpenClient, tenants: Tenants) -> None:
    seen: list[str] = []
    with on_plan(open_client, tenants, "free", used=1_000, adapt=probing(seen)) as backend:
        both = Both(backend, seen)
        for path, bodies in ORDINARY.items():
            assert both.compare(path, bodies[0]) == (402, True)


def test_the_rate_limit_counts_both_ways_together(open_client: OpenClient, tenants: Tenants) -> None:
    limits = LimitSettings(per_key=4, per_jwt=4, per_ip=60, redis_url=None)
    key = tenants.key(tenants.create("shop"))
    with open_client(limits=limits) as client:
        client.headers.update(key)
        kinds = (DIRECT, GENERAL, DIRECT, GENERAL, DIRECT, GENERAL)
        answers = [
            client.post(RECOMMEND, content=ORDINARY[RECOMMEND][0], headers={"content-type": kind}) for kind in kinds
        ]
        if len({answer.headers["x-ratelimit-reset"] for answer in answers}) == 1:  # else a minute began meanwhile
            assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["3", "2", "1", "0", "0", "0"]
            assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2


def test_allowed_origins_are_answered_alike(open_client: OpenClient, tenants: Tenants) -> None:
    seen: list[str] = []
    changes = {"adapt": probing(seen), "api": ApiSettings(cors_origins=("https://shop.example",))}
    with running_backend(open_client, tenants, **changes) as backend:
        both = Both(backend, seen)
        origin = {"Origin": "https://shop.example"}
        assert both.compare(RECOMMEND, ORDINARY[RECOMMEND][0], origin) == (200, True)
        answer = backend.client.post(
            RECOMMEND, content=ORDINARY[RECOMMEND][0], headers={"content-type": DIRECT, **origin}
        )
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"


def test_both_ways_log_the_same_line(both: Both, lines: Any) -> None:
    def logged(path: str, body: bytes, kind: str, headers: dict[str, str]) -> list[dict[str, Any]]:
        both.backend.client.post(path, content=body, headers={"content-type": kind, **headers})
        found = [line for line in lines() if line["logger"] == "api.access"]
        return [
            {key: value for key, value in line.items() if key not in ("ms", "trace_id", "timestamp")} for line in found
        ]

    for path, bodies in ORDINARY.items():
        for headers in ({}, {"X-API-Key": "nonsense"}):
            direct, general = (logged(path, bodies[0], kind, headers) for kind in (DIRECT, GENERAL))
            assert direct == general
            assert [line["route"] for line in direct] == [path]


def test_an_impression_is_recorded_either_way(both: Both) -> None:
    def shown(kind: str) -> tuple[Any, ...]:
        headers = {"content-type": kind}
        answer = both.backend.client.post(RECOMMEND, content=b'{"userId":"7","count":2}', headers=headers)
        recommendations = both.backend.client.app.state.recommendations  # type: ignore[attr-defined]
        both.backend.client.portal.call(recommendations.impressions.flush)  # type: ignore[union-attr]
        (row,) = both.backend.sql(
            "SELECT user_id, algorithm, release, degraded, item_ids, scores FROM impressions "
            "WHERE recommendation_id = %s",
            [answer.headers["x-recommendation-id"]],
        )
        return row

    assert shown(DIRECT) == shown(GENERAL)


def test_a_direct_route_needs_a_general_one() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match="no general route for /api/v1/other"):
        DirectRoutes(never, [DirectRoute("/api/v1/other", read_recommend, never)], general=FastAPI().routes)
