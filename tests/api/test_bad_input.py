"""Bad input to every route over real HTTP: always a 4xx problem, never a 5xx, never a hang."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from api.app import create_app
from api.http.bodies import MAX_BODY_VALUES
from configs.api import LimitSettings
from tests.api.conftest import Tenants, configuration_of
from tests.fixtures import nasty
from tests.fixtures.live import served
from tests.fixtures.routes import Route, all_routes
from tests.fixtures.standin import StandIn
from tests.fixtures.twins import Twin, make_twin
from tests.fixtures.valid_bodies import bodies_of

ROUTES = [route for route in all_routes() if str(route) != "GET /graphql"]
TAKING_BODIES = [route for route in ROUTES if route.has_body]
NAMING = [route for route in ROUTES if route.parameters]
QUERIES = {
    "page": ("0", "-1", "1.5", "NaN", "9" * 400, "1e5", ""),
    "pageSize": ("0", "101", "9" * 400, "true", "0x10"),
    "period": ("8d", "", "7D", "\0", "x" * 8_000),
    "search": ("\0", "x" * 1_025, "\ud800"),
    "userId": ("", "\0", "x" * 257, "\n"),
    "algorithm": ("none", "", "\0"),
    "count": ("0", "-1", "101", "1.5", "9" * 400, "", "NaN"),
    "filter": ("", "{", "[]", '{"$where": 1}', "\0", "[" * 2_000, "x" * 8_001, '{"a": NaN}'),
    "itemId": ("", "\0", "x" * 257, "\n"),
    "grant_type": ("", "id_token", "\0"),
    "status": ("", "Live", "\0"),
    "publish": ("", "maybe", "\0"),
    "scope": ("everyone", "\0"),
    "action": ("", "Key", "key.created;", "\0", "x" * 65),
    "actor": ("\0", "x" * 1_025, "\ud800"),
    "from": ("", "0.5", "1767225600", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "9" * 400),
    "scenario": ("\0", "x" * 1_025, "\ud800"),
    "family": ("none", "", "\0"),
    "release": ("\0", "x" * 1_025, "\ud800"),
    "segment": ("none", "", "\0"),
    "windowHours": ("0", "337", "1.5", "9" * 400, ""),
    "to": ("", "tomorrow", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "\0"),
}
"""What no route takes in a query."""
SECONDS = 20.0
"""Within which anything is answered, on a machine that does much else."""


@pytest.fixture(scope="module")
def api(
    module_database_url: str, tmp_path_factory: Any, stripe_account: StandIn
) -> Iterator[tuple[httpx.Client, Twin]]:
    configuration = configuration_of(module_database_url, tmp_path_factory.mktemp("api"))
    unlimited = LimitSettings(per_key=10**9, per_jwt=10**9, per_ip=10**9, redis_url=None)
    configuration = configuration.__class__(
        **{**vars(configuration), "limits": unlimited, "billing": stripe_account.settings()}
    )
    with (
        served(create_app(configuration)) as url,
        httpx.Client(base_url=url, timeout=SECONDS, limits=httpx.Limits(max_keepalive_connections=1)) as client,
    ):
        yield client, make_twin(client, module_database_url, Tenants(module_database_url), "acme", "beta")


def send(api: tuple[httpx.Client, Twin], route: Route, path: str, **content: Any) -> httpx.Response:
    """The answer to a credential that opens the route, or to none where the route asks for none."""
    client, twin = api
    headers = content.pop("headers", {})
    for credential in ({}, *twin.credentials.values()):
        answer = client.request(route.method, path, headers={**headers, **credential}, **content)
        if answer.status_code not in (401, 403) or route.path.startswith("/api/auth/"):
            return answer
    return answer


def assert_refused(answer: httpx.Response, what: str, statuses: Any = range(400, 500)) -> None:
    assert answer.status_code in statuses, (what, answer.status_code, answer.text[:500])
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", what
        assert {"type", "title", "status", "detail", "traceId"} <= answer.json().keys(), what


def own_path(route: Route, twin: Twin) -> str:
    return route.path.format(**{name: quote(value, safe="") for name, value in twin.ids.items()})


@pytest.mark.parametrize("route", TAKING_BODIES, ids=str)
def test_a_body_that_is_none_is_refused(route: Route, api: tuple[httpx.Client, Twin]) -> None:
    path = own_path(route, api[1])
    for name, (body, content_type) in nasty.BODIES.items():
        headers = {} if content_type is None else {"content-type": content_type}
        answer = send(api, route, path, content=body, headers=headers)
        assert_refused(answer, name)
        assert answer.status_code in (400, 401, 413, 415, 422), (name, answer.text)


@pytest.mark.parametrize("route", TAKING_BODIES, ids=str)
def test_a_value_that_is_none_is_refused_or_harmless(route: Route, api: tuple[httpx.Client, Twin]) -> None:
    path = own_path(route, api[1])
    valid = (
        public_body(route) if route.path.startswith(("/api/auth/", "/auth/v1/")) else bodies_of(route, api[1].ids)[0]
    )
    for where, what, body in nasty.with_each_value_replaced(valid):
        answer = send(api, route, path, content=body, headers={"content-type": "application/json"})
        assert_refused(answer, f"{where}: {what}", range(200, 500))
        if what in nasty.NOWHERE and where != nasty.UNKNOWN:
            assert answer.status_code >= 400 or answer.json()["failed"] > 0, (where, what, answer.text)


def public_body(route: Route) -> dict[str, Any]:
    body: dict[str, Any] = {"email": "nobody@beta.example", "password": "a password of the tests", "name": "x"}
    return body | {"refresh_token": "x", "data": {"name": "x"}} if route.path.startswith("/auth") else body


@pytest.mark.parametrize("route", NAMING, ids=str)
def test_an_id_that_is_none_or_names_nothing_is_refused(route: Route, api: tuple[httpx.Client, Twin]) -> None:
    body = {"json": bodies_of(route, api[1].ids)[0]} if route.has_body else {}
    encoded = {name: quote(value, safe="") for name, value in nasty.IDS.items()} | nasty.RAW_IDS
    for parameter in route.parameters:
        for name, value in encoded.items():
            ids = {other: quote(own, safe="") for other, own in api[1].ids.items()} | {parameter: value}
            answer = send(api, route, route.path.format(**ids), **body)
            assert_refused(answer, name)
            assert answer.status_code in (400, 404, 405, 414, 431), (name, answer.text)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.queries], ids=str)
def test_a_query_that_is_none_is_refused(route: Route, api: tuple[httpx.Client, Twin]) -> None:
    unknown = set(route.queries) - QUERIES.keys()
    assert not unknown, f"say in QUERIES what {unknown} may not be"
    body = {"json": public_body(route)} if route.has_body else {}
    for name in route.queries:
        for value in QUERIES[name]:
            text = quote(value, safe="", errors="surrogatepass")
            answer = send(api, route, f"{own_path(route, api[1])}?{name}={text}", **body)
            assert_refused(answer, f"{name}={value[:20]!r}", (400,))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": ""},
        {"X-API-Key": "é".encode()},
        {"X-API-Key": b"\xff"},
        {"X-API-Key": "rk_" + "x" * 60_000},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer " + "x" * 60_000},
        {"Authorization": b"Bearer \xff.\xff.\xff"},
        {"Authorization": "Bearer e30.e30.e30"},
        {"Authorization": "Basic YTpi"},
        {"traceparent": b"\xff"},
        {"X-Forwarded-For": "x" * 10_000},
    ],
    ids=lambda headers: f"{next(iter(headers))} {next(iter(headers.values()))[:12]!r}",
)
def test_a_credential_that_is_none_is_refused(headers: Any, api: tuple[httpx.Client, Twin]) -> None:
    for route in ROUTES:
        if route.path.startswith(("/health", "/api/auth", "/auth/v1/token", "/auth/v1/signup", "/api/billing/plans")):
            continue
        body = {"json": bodies_of(route, api[1].ids)[0]} if route.has_body else {}
        answer = api[0].request(route.method, own_path(route, api[1]), headers=headers, **body)
        if route.path == "/graphql" and answer.status_code == 200:
            assert answer.json()["errors"][0]["extensions"]["status"] == 401
        else:
            assert_refused(answer, str(route), (401, 431, 400))


def test_ten_thousand_aliases_are_refused_quickly(api: tuple[httpx.Client, Twin]) -> None:
    query = "{" + " ".join(f"a{number}: getApiVersion" for number in range(10_000)) + "}"
    answer = api[0].post("/graphql", json={"query": query}, timeout=5.0)
    assert_refused(answer, "aliases", (400,))


def test_a_body_holds_up_to_25_000_values(api: tuple[httpx.Client, Twin]) -> None:
    client, twin = api
    for values, status in ((MAX_BODY_VALUES - 8, 200), (MAX_BODY_VALUES, 400)):
        body = f'{{"userId": "u", "count": 1, "more": [{",".join(["[]"] * (values // 2))}]}}'
        answer = client.post(
            "/api/v1/recommend", content=body, headers={**twin.credentials["key"], "content-type": "application/json"}
        )
        assert answer.status_code == status, answer.text
    assert answer.json()["detail"] == "The body holds more than 25,000 JSON values"


def test_after_all_that_the_api_answers(api: tuple[httpx.Client, Twin]) -> None:
    client, twin = api
    assert client.get("/health").text == "Healthy"
    made = client.post("/api/items", json={"metadata": {}}, headers=twin.credentials["key"])
    assert json.loads(made.text)["tenantId"] == "acme"
