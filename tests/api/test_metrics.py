"""The API's metrics: counters equal what was asked, over all processes, on a port of their own, and name nobody."""

from pathlib import Path

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import Tenants
from tests.fixtures.live import api_process
from tests.fixtures.platform import free_ports, wait_until
from tests.fixtures.redis import RedisServer

USER = "a-user-whose-id-must-not-be-seen"
ASKED = 7


def samples(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample at this address, by name and labels."""
    answer = httpx.get(url, timeout=30).raise_for_status()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_counters_equal_what_was_asked(
    workers: int, tenants: Tenants, database_url: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    key = tenants.key(tenants.create())
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO items (tenant_id, id, metadata, version) SELECT id, 'film-1', '{}', 0 FROM tenants"
        )
    (port,) = free_ports(1)
    settings = {"METRICS_PORT": str(port), "API_WORKERS": str(workers)} | (
        {"REDIS_URL": redis_server.url} if workers > 1 else {}
    )
    with api_process(database_url, tmp_path, **settings) as api:
        before = samples(f"http://127.0.0.1:{port}/metrics")
        for _ in range(ASKED):
            answer = httpx.post(f"{api.url}/api/v1/recommend", json={"userId": USER, "count": 1}, headers=key)
            assert answer.headers["X-Recommendation-Degraded"].startswith("serving-unavailable")
        assert httpx.post(f"{api.url}/api/v1/recommend", json={"userId": USER, "count": 0}, headers=key).is_client_error
        assert httpx.get(f"{api.url}/api/{USER}").status_code in (401, 404)
        assert httpx.get(f"{api.url}/metrics").status_code in (401, 404)  # nothing on the public port
        assert httpx.get(f"http://127.0.0.1:{port}/elsewhere").status_code == 404

        def counted(name: str, **labels: str) -> float:
            key = (name, frozenset(labels.items()))
            return samples(f"http://127.0.0.1:{port}/metrics").get(key, 0.0) - before.get(key, 0.0)

        route = {"method": "POST", "route": "/api/v1/recommend"}
        wait_until("all to be counted", lambda: counted("recommendai_http_request_seconds_count", **route) == ASKED + 1)
        assert counted("recommendai_http_requests_total", **route, status="200") == ASKED
        assert counted("recommendai_http_requests_total", **route, status="400") == 1
        assert counted("recommendai_fallbacks_total", query="recommend", reason="serving-unavailable") == ASKED
        assert counted("recommendai_recommendation_seconds_count", query="recommend", algorithm="hybrid") == ASKED
        found = samples(f"http://127.0.0.1:{port}/metrics")
        assert found["recommendai_backlog_rows", frozenset({("queue", "stripe_events")})] == 0
        assert not [key for key in found if USER in str(key) or "acme" in str(key)]


def test_a_port_that_is_taken_is_named(database_url: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (
        api_process(database_url, tmp_path, METRICS_PORT=str(port)),
        pytest.raises(AssertionError, match=f"METRICS_PORT={port}: .*in use"),
        api_process(database_url, tmp_path, METRICS_PORT=str(port)),
    ):
        raise RuntimeError("the second API started")
