"""Every request belongs to a trace, and every line that it logs has the trace id."""

import json
import logging
from typing import Any

import pytest
import structlog
from fastapi import FastAPI

from tests.api.conftest import OpenClient, Tenants

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def _routes(app: FastAPI) -> None:
    @app.get("/people/{user}")
    async def get(user: str) -> None:
        structlog.get_logger("domain").info("working")
        logging.getLogger("library").warning("a library speaks")

    @app.get("/fails")
    async def fails() -> None:
        raise ZeroDivisionError


def test_an_incoming_trace_is_joined(open_client: OpenClient) -> None:
    with open_client() as client:
        answers = [client.get("/nothing", headers={"traceparent": PARENT}).json()["traceId"] for _ in range(2)]
    assert all(answer.startswith(f"00-{TRACE}-") for answer in answers)
    assert len({*answers, PARENT}) == 3  # each request is a span of its own


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
    ],
)
def test_a_malformed_trace_is_replaced(open_client: OpenClient, header: str) -> None:
    with open_client() as client:
        trace_id = client.get("/nothing", headers={"traceparent": header}).json()["traceId"]
    assert TRACE not in trace_id
    assert len(trace_id) == len(PARENT)


def test_every_line_of_a_request_has_its_trace_id(open_client: OpenClient, lines: Any) -> None:
    with open_client(adapt=_routes) as client:
        lines()
        client.get("/people/ada", headers={"traceparent": PARENT})
        logged = [line for line in lines() if line["logger"] in {"domain", "library", "api.access"}]
    assert [line["event"] for line in logged] == ["working", "a library speaks", "request"]
    assert {line["trace_id"] for line in logged} == {TRACE}


def test_the_access_line_names_the_route_the_status_and_the_tenant_and_no_id_of_a_user(
    open_client: OpenClient, tenants: Tenants, lines: Any
) -> None:
    key = tenants.key(tenants.create("acme"))
    with open_client(adapt=_routes) as client:
        lines()
        client.get("/people/ada", headers=key)
        (line,) = [line for line in lines() if line["logger"] == "api.access"]
    assert (line["method"], line["route"], line["status"], line["tenant"]) == ("GET", "/people/{user}", 200, "acme")
    assert line["ms"] > 0
    assert "ada" not in json.dumps(line)


def test_an_unhandled_exception_is_logged_with_its_traceback_under_the_trace_of_the_answer(
    open_client: OpenClient, lines: Any
) -> None:
    with open_client(adapt=_routes) as client:
        lines()
        trace_id = client.get("/fails").json()["traceId"].split("-")[1]
        (line,) = [line for line in lines() if line["event"] == "unhandled"]
    assert "ZeroDivisionError" in line["exception"]
    assert line["trace_id"] == trace_id


def test_a_line_is_written_whatever_it_holds(lines: Any) -> None:
    lines()
    structlog.get_logger("odd").info("odd", text="half \ud800", number=2**70, keys={(1, 2): object()})
    structlog.get_logger("odd").debug("not at this level")
    (line,) = lines()
    assert (line["text"], line["number"], line["level"]) == ("half \ud800", 2**70, "info")
