"""The application as a whole: what it loads, what it commits and when, and how it runs under its own server."""

import inspect
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy import text
from starlette.testclient import TestClient

from api.app import Configuration, create_app
from api.database.session import CurrentDatabase, Session
from api.http.problems import Conflict
from configs.api import ApiSettings
from tests.api.conftest import OpenClient, Tenants
from tests.fixtures.live import ApiProcess, api_process

INSERT = "INSERT INTO tenants (id) VALUES (:id)"


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for part in dependant.dependencies:
        yield from _dependants(part)


def _routes(routes: Any) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from _routes(router.routes)


def test_no_route_and_no_dependency_takes_the_way_through_a_thread(configuration: Configuration) -> None:
    """FastAPI runs plain functions in a thread pool, which costs each request more than all of the edge does."""
    routes = list(_routes(create_app(configuration).routes))
    assert "/api/auth/login" in {route.path for route in routes}
    slow = {
        f"{route.path}: {found.call}"
        for route in routes
        for found in _dependants(route.dependant)
        if found.call is not None
        and not inspect.iscoroutinefunction(found.call)
        and not inspect.isasyncgenfunction(found.call)
    }
    assert slow == set()


def test_the_session_commits_before_the_answer_and_rolls_back_on_a_problem(
    open_client: OpenClient, database_url: str
) -> None:
    seen: list[int] = []

    def count() -> int:
        with psycopg.connect(database_url) as connection:
            return int((connection.execute("SELECT count(*) FROM tenants").fetchone() or (0,))[0])

    def routes(app: FastAPI) -> None:
        @app.post("/made/{tenant}", status_code=201)
        async def make(tenant: str, session: Session) -> str:
            await session.exec(text(INSERT), params={"id": tenant})  # type: ignore[call-overload]
            return tenant

        @app.post("/refused/{tenant}")
        async def refuse(tenant: str, session: Session) -> None:
            await session.exec(text(INSERT), params={"id": tenant})  # type: ignore[call-overload]
            raise Conflict("No")

        # Outermost: sees the first byte of an answer as a client would.
        inner = app.build_middleware_stack

        def watched() -> Any:
            stack = inner()

            async def watch(scope: Any, receive: Any, send: Any) -> None:
                async def look(message: Any) -> None:
                    if message["type"] == "http.response.start":
                        seen.append(count())
                    await send(message)

                await stack(scope, receive, look)

            return watch

        app.build_middleware_stack = watched  # type: ignore[method-assign]

    with open_client(adapt=routes) as client:
        assert client.post("/made/acme").status_code == 201
        assert seen == [1]
        assert client.post("/refused/other").status_code == 409
        assert count() == 1
        # What fails at the commit is no success either.
        assert client.post("/made/acme").status_code == 500


def test_the_pool_of_the_hot_path_is_in_autocommit(open_client: OpenClient, database_url: str) -> None:
    def routes(app: FastAPI) -> None:
        @app.post("/made")
        async def make(database: CurrentDatabase) -> bool:
            async with database.pool.connection() as connection:
                await connection.execute("INSERT INTO tenants (id) VALUES ('acme')")
                with psycopg.connect(database_url) as other:
                    return other.execute("SELECT 1 FROM tenants").fetchone() is not None

    with open_client(adapt=routes) as client:
        assert client.post("/made").json() is True


def test_the_noop_is_there_only_where_it_is_asked_for(open_client: OpenClient) -> None:
    with open_client() as client:
        assert client.post("/benchmark/noop", json={}).status_code == 404
    with open_client(api=ApiSettings(benchmark_routes=True)) as client:
        answer = client.post("/benchmark/noop", json={"a": 1})
        assert (answer.status_code, answer.json()) == (200, {"a": 1})
        assert "x-ratelimit-limit" not in answer.headers


def test_browsers_of_other_sites_are_shut_out_until_they_are_named(open_client: OpenClient) -> None:
    asks = {"Origin": "https://portal.example", "Access-Control-Request-Method": "POST"}
    with open_client() as client:
        assert "access-control-allow-origin" not in client.get("/health", headers=asks).headers
        assert client.options("/api/auth/login", headers=asks).status_code == 405
    with open_client(api=ApiSettings(cors_origins="https://portal.example, https://other.example")) as client:
        answer = client.options("/api/auth/login", headers=asks)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://portal.example")
        refused = client.get("/health", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers


def test_every_answer_carries_the_headers_that_keep_browsers_careful(client: TestClient) -> None:
    for path in ("/health", "/nothing", "/docs"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


PUBLIC = {
    *("/health", "/health/ready", "/api/auth/login", "/api/auth/register", "/auth/v1/token", "/auth/v1/signup"),
    *("/api/billing/plans", "/api/billing/webhook"),
}


def _contents(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(status or "body", media type object) of what an operation takes and of what it answers."""
    for media in operation.get("requestBody", {}).get("content", {}).values():
        yield "body", media
    for status, response in operation["responses"].items():
        for media in response.get("content", {}).values():
            yield status, media


def test_the_openapi_document_has_a_summary_an_example_and_the_errors_of_every_route(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method} {path}"
            assert operation["summary"], name
            assert (operation["security"] == []) == (path in PUBLIC), name
            contents = list(_contents(operation))
            assert all("example" in media for status, media in contents if status == "body" or status < "4"), name
            assert ("200" in operation["responses"]) or {"201", "202", "204"} & set(operation["responses"]), name
            if path.startswith("/health"):
                continue
            expected = {"400", "429", "500", "503"}
            expected |= {"401", "403"} if operation["security"] else set()
            expected |= {"404"} if "{" in path else set()
            expected |= {"413"} if "requestBody" in operation else set()
            assert expected <= set(operation["responses"]), name
            problems = {status for status, media in contents if media["schema"].get("$ref", "").endswith("/Problem")}
            assert problems == {status for status in operation["responses"] if status >= "4"}, name


def test_the_openapi_document_is_built_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(client.app, FastAPI)
    first = client.get("/openapi.json")
    assert first.json() == client.app.openapi()
    assert first.headers["content-type"] == "application/json"
    monkeypatch.setattr(client.app, "openapi", lambda: {})
    assert client.get("/openapi.json").content == first.content


def test_the_page_of_the_docs_loads_from_this_server_alone(client: TestClient) -> None:
    page = client.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) >= 2
    assert all(source.startswith(str(client.base_url)) for source in sources), sources
    assert all(client.get(source).status_code == 200 for source in sources)


def test_the_openapi_document_says_which_credential_opens_a_route(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert paths["/api/items"]["get"]["security"] == [{"ApiKey": []}]
    assert paths["/api/users"]["get"]["security"] == [{"Token": []}]
    assert paths["/graphql"]["post"]["security"] == [{}, {"ApiKey": []}]
    heeding = {
        path
        for path, operations in paths.items()
        if "post" in operations
        and any(parameter["name"] == "Idempotency-Key" for parameter in operations["post"].get("parameters", ()))
    }
    assert {"/api/items", "/api/keys", "/api/v1/interactions", "/graphql"} <= heeding
    assert not heeding & {"/api/v1/recommend", "/api/v1/similar", "/auth/v1/logout", *PUBLIC}
    assert "/api/scenarios" in heeding and "/api/scenarios/{scenario_id}/preview" not in heeding


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ApiProcess]:
    with api_process(database_url, tmp_path, BENCHMARK_ROUTES="1", RATE_LIMIT_IP="1000") as server:
        yield server


def test_the_server_speaks_http_and_ends_on_sigterm(server: ApiProcess, tenants: Tenants) -> None:
    process, url = server.process, server.url
    key = tenants.key(tenants.create())
    with httpx.Client(base_url=url) as client:
        assert client.get("/nothing", headers=key).json()["title"] == "Not Found"
        assert "server" not in client.get("/health").headers
        # A body that is refused unread, and the connection's next request.
        for size in (3, 20):
            big = client.post("/benchmark/noop", content=b"x" * size * 1024 * 1024, headers={"content-type": "a/b"})
            assert (big.status_code, big.headers["content-type"]) == (413, "application/problem+json")
        assert client.post("/benchmark/noop", json={}).json() == {}
        spoofed = client.get("/nothing", headers={"X-Forwarded-For": "198.51.100.7"})
        next_one = client.get("/nothing", headers={"X-Forwarded-For": "198.51.100.8"})
        left = [int(answer.headers["x-ratelimit-remaining"]) for answer in (spoofed, next_one)]
        assert left[0] - left[1] in (1, -999)  # one count for both, or a new minute
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) in (0, -signal.SIGTERM)


def test_half_a_request_is_answered_with_a_400_or_cut(server: ApiProcess) -> None:
    url = server.url
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        assert connection.recv(1024)[:12] in (b"HTTP/1.1 400", b"")
    assert httpx.get(f"{url}/health").text == "Healthy"
