"""A recorded request is one trace, from the route through the hop to the models, and names no user."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from configs.spans import SpanSettings
from tests.fixtures.backend import running_backend
from tests.fixtures.collector import Collector, running_collector
from tests.fixtures.model_server import ModelServer, model_server
from tests.fixtures.platform import wait_until
from tests.fixtures.releases import CATALOGUE_VERSION, publish_small, small_dataset

pytestmark = pytest.mark.service

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced_server(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with pytest.MonkeyPatch.context() as patch, model_server(tmp_path_factory.mktemp("state")) as server:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")  # only what the API records is recorded
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        server.start()
        yield server


def test_a_request_is_one_trace_from_the_route_to_the_models_without_a_user(
    open_client: Any, tenants: Any, collector: Collector, traced_server: ModelServer, tmp_path: Path
) -> None:
    tenant_id = f"films-{uuid4().hex[:8]}"
    traced_server.await_release(tenant_id, publish_small(traced_server.paths.bentoml, tmp_path / "models", tenant_id))
    settings = SpanSettings(endpoint=collector.url, sampled=1.0)
    with running_backend(open_client, tenants, tenant_id, serving=traced_server.settings, spans=settings) as backend:
        items = small_dataset().items
        backend.add_items(dict(zip(items.ids, items.metadata, strict=True)))
        backend.sql("UPDATE items SET version = 1")
        backend.sql("UPDATE catalogues SET version = %s", [CATALOGUE_VERSION])
        answer = backend.client.post(
            "/api/v1/recommend",
            json={"userId": "ann-the-user", "count": 5, "algorithm": "collaborative"},
            headers={"traceparent": f"00-{TRACE}-{CALLER}-01"},
        )
        assert answer.status_code == 200
        assert "X-Recommendation-Degraded" not in answer.headers
    wait_until("the model server's span", lambda: len(collector.of_trace(TRACE)) == 5)
    spans = {span["name"]: span for span in collector.of_trace(TRACE)}
    parents = {"POST /api/v1/recommend": CALLER}
    for name, parent in (
        ("read the user", "POST /api/v1/recommend"),
        ("ask the models", "POST /api/v1/recommend"),
        ("send a batch", "ask the models"),
        ("answer a batch", "send a batch"),
    ):
        parents[name] = spans[parent]["id"]
    assert {name: span["parent"] for name, span in spans.items()} == parents
    programs = dict.fromkeys(spans, "recommendai-api") | {"answer a batch": "recommendai-serving"}
    assert {name: span["program"] for name, span in spans.items()} == programs
    assert spans["answer a batch"]["seconds"] <= spans["send a batch"]["seconds"]
    assert tenant_id in spans["POST /api/v1/recommend"]["attributes"]
    assert "ann-the-user" not in str(collector.spans)


def test_a_stranger_does_not_decide_what_is_recorded(open_client: Any, tenants: Any, collector: Collector) -> None:
    trace = "f" * 32  # the last of all to be sampled
    settings = SpanSettings(endpoint=collector.url, sampled=0.5)
    with running_backend(open_client, tenants, spans=settings) as backend:
        answer = backend.client.get("/nothing", headers={"traceparent": f"00-{trace}-{CALLER}-01"})
        assert answer.json()["traceId"].startswith(f"00-{trace}-")
        assert answer.json()["traceId"].endswith("-00")
    assert collector.of_trace(trace) == []


def test_a_collector_that_is_away_costs_no_answer(open_client: Any, tenants: Any) -> None:
    settings = SpanSettings(endpoint="http://127.0.0.1:1", sampled=1.0)
    with running_backend(open_client, tenants, spans=settings) as backend:
        assert backend.post("/api/v1/recommend", {"userId": "ann", "count": 5}) == []
