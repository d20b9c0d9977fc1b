"""Dagster's console answers its own pages, under its own names, and after a login where a password is set."""

import base64
from typing import Any

import pytest

from configs.console_guard import ConsoleGuard, ConsoleRules

OWN = "127.0.0.1:3001"
JSON = {"content-type": "application/json"}
PASSWORD = "a long enough password"


async def _application(*_: Any) -> None: ...


def status(
    method: str = "POST",
    path: str = "/graphql",
    headers: dict[str, str] | None = None,
    query: bytes = b"",
    guard: ConsoleGuard | None = None,
    kind: str = "http",
) -> int | None:
    """The status of the refusal; None where the request goes through."""
    given = {"host": OWN, **(headers or {})}
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    refusal = (guard or ConsoleGuard(_application)).refusal(scope)
    return None if refusal is None else int(refusal.status)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/runs/1", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),  # a link in a mail
        ("GET", "/assets", {"sec-fetch-site": "same-origin"}),
        ("POST", "/graphql", JSON),  # a program
        ("POST", "/graphql", {**JSON, "origin": f"http://{OWN}", "sec-fetch-site": "same-origin"}),
        ("POST", "/graphql", {**JSON, "host": "localhost:3001", "origin": "http://localhost:3001"}),
        ("POST", "/graphql", {"host": "[::1]:3001", "content-type": "application/json; charset=utf-8"}),
    ],
)
def test_the_console_s_own_pages_and_programs_are_answered(method: str, path: str, headers: dict[str, str]) -> None:
    assert status(method, path, headers) is None


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("GET", "/", {"host": "evil.example"}, 421),  # a name that resolves to this machine
        ("GET", "/", {"host": "127.0.0.1.evil.example"}, 421),
        ("POST", "/graphql", {**JSON, "host": "evil.example:3001", "origin": "http://evil.example:3001"}, 421),
        ("POST", "/graphql", {**JSON, "origin": "https://evil.example"}, 403),
        ("POST", "/graphql", {**JSON, "origin": "null"}, 403),
        ("POST", "/graphql", {**JSON, "origin": "http://[127.0.0.1"}, 403),
        ("POST", "/graphql", {**JSON, "origin": "http://127.0.0.1:8000"}, 403),  # another program of this machine
        ("POST", "/graphql", {**JSON, "sec-fetch-site": "same-site"}, 403),
        ("GET", "/graphql", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),  # an image
        ("GET", "/graphql", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("POST", "/graphql", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),  # a form
        ("POST", "/graphql", {"content-type": "text/plain"}, 415),
        ("POST", "/graphql", {"content-type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/graphql", {}, 415),
    ],
)
def test_other_sites_are_refused(method: str, path: str, headers: dict[str, str], expected: int) -> None:
    assert status(method, path, headers) == expected


def test_graphql_by_get_is_refused_whoever_sends_it() -> None:
    assert status("GET", query=b"query=mutation{stopRunningSchedule}") == 405
    assert status("GET") is None  # the page in which one writes queries


def test_the_last_of_two_headers_counts_and_many_are_refused() -> None:
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
    guard = ConsoleGuard(_application)
    two = guard.refusal({**scope, "headers": [(b"host", OWN.encode()), (b"host", b"evil.example")]})
    many = guard.refusal({**scope, "headers": [(b"host", OWN.encode())] + [(b"x", b"y")] * 100})
    assert two is not None and many is not None


def test_a_websocket_is_held_to_the_same() -> None:
    assert status("", headers={"origin": f"http://{OWN}"}, kind="websocket") is None
    assert status("", headers={"origin": "http://evil.example"}, kind="websocket") == 403
    assert status("", headers={"host": "evil.example"}, kind="websocket") == 421


def test_where_a_password_is_set_only_the_operator_gets_in() -> None:
    guard = ConsoleGuard(_application, password=PASSWORD)

    def authorization(text: str) -> dict[str, str]:
        return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}

    assert status("GET", "/", authorization(f"operator:{PASSWORD}"), guard=guard) is None
    refused = ("", "operator:", f"admin:{PASSWORD}", f"operator:{PASSWORD}x", "operator")
    assert {status("GET", "/", authorization(each), guard=guard) for each in refused} == {401}
    others: tuple[dict[str, str], ...] = ({}, {"authorization": "Basic ???"}, {"authorization": f"Bearer {PASSWORD}"})
    assert {status("GET", "/", each, guard=guard) for each in others} == {401}


def test_other_names_are_a_setting() -> None:
    guard = ConsoleGuard(_application, hosts=("Dagster.example",))
    assert status("GET", "/", {"host": "dagster.example"}, guard=guard) is None
    assert status("GET", "/", {"host": "example"}, guard=guard) == 421


FILES = ConsoleGuard(_application, rules=ConsoleRules(takes_files=True, closed_paths=("/api/assistant", "/gateway")))


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("PUT", {"content-type": "text/plain", "content-length": "5"}, None),  # an artefact, by MLflow's client
        ("POST", {"content-type": "application/x-protobuf", "content-length": "5"}, None),
        ("POST", {}, None),  # without a body there is nothing that a form could send
        ("POST", {"content-type": "text/plain", "content-length": "5"}, 415),
        ("POST", {"content-type": "multipart/form-data; boundary=x", "content-length": "5"}, 415),
        ("POST", {"content-length": "5"}, 415),
        ("POST", {"transfer-encoding": "chunked"}, 415),
        ("PUT", {"content-type": "text/plain", "origin": "http://evil.example"}, 403),
        ("DELETE", {"content-type": "application/json", "host": "evil.example"}, 421),
    ],
)
def test_a_console_that_takes_files_takes_none_that_a_form_could_send(
    method: str, headers: dict[str, str], expected: int | None
) -> None:
    assert status(method, "/api/artifacts", headers, guard=FILES) == expected


@pytest.mark.parametrize(
    "path",
    [
        *("/gateway", "/gateway/x", "//gateway", "/./gateway/", "/a/../Gateway/x", "/api/assistant/message"),
        "/gateway/proxy/x/../../../..",  # MLflow takes all of it as a path of its gateway
    ],
)
def test_closed_parts_are_closed_however_their_path_is_written(path: str) -> None:
    assert status("GET", path, guard=FILES) == 404
    assert status("POST", path, JSON, guard=FILES) == 404


def test_only_reading_the_open_paths_needs_no_login() -> None:
    guard = ConsoleGuard(_application, password=PASSWORD, rules=ConsoleRules(open_paths=("/health",)))
    assert status("GET", "/health", guard=guard) is None
    assert status("GET", "/health", {"host": "evil.example"}, guard=guard) == 421
    for method, path in (("POST", "/health"), ("GET", "/health/"), ("GET", "/healthz"), ("GET", "/HEALTH")):
        assert status(method, path, guard=guard) == 401
    assert status("", "/health", guard=guard, kind="websocket") == 401


def test_graphql_by_head_is_refused_as_by_get() -> None:
    assert status("HEAD", query=b"query=mutation{stopRunningSchedule}") == 405
