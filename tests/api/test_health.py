"""Health: liveness, readiness, and that the API stays ready without a model server."""

from typing import Any

import msgspec
import psycopg
import pytest
from starlette.testclient import TestClient

from api.database.migrate import downgrade
from configs.serving import ServingSettings
from serving.contracts.messages import ReleaseInfo
from tests.api.conftest import OpenClient


def test_health_is_the_word_healthy(client: TestClient) -> None:
    answer = client.get("/health")
    assert (answer.status_code, answer.text) == (200, "Healthy")
    assert answer.headers["content-type"].startswith("text/plain")
    assert client.head("/health").status_code == 200


def test_a_dead_model_server_leaves_the_api_ready(client: TestClient) -> None:
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json() == {"database": "up", "migrations": "up", "serving": "down"}


@pytest.mark.parametrize(
    ("releases", "state"), [({}, "degraded"), ({"acme": ReleaseInfo("r1", "2026-01-01T00:00:00Z", 0, 0, {})}, "up")]
)
def test_the_model_server_is_degraded_until_it_has_a_release(
    open_client: OpenClient, releases: dict[str, ReleaseInfo], state: str, model_server: Any
) -> None:
    with open_client(serving=ServingSettings(url=model_server(msgspec.json.encode(releases)))) as client:
        assert client.get("/health/ready").json()["serving"] == state


@pytest.mark.parametrize(
    ("statement", "migrations", "status"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "degraded", 200),  # a newer release is being rolled out
        ("DELETE FROM alembic_version", "down", 503),
        ("DROP TABLE alembic_version", "down", 503),
    ],
)
def test_readiness_knows_how_the_database_and_the_code_compare(
    client: TestClient, database_url: str, statement: str, migrations: str, status: int
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(statement)
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["migrations"]) == (status, migrations)
    assert answer.json()["database"] == "up"


def test_a_database_that_is_not_migrated_is_not_ready(client: TestClient, database_url: str) -> None:
    downgrade(database_url, "base")
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["migrations"]) == (503, "down")


@pytest.fixture
def model_server() -> Any:
    """Starts an HTTP server that answers these bytes to everything, and returns its URL."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    servers: list[ThreadingHTTPServer] = []

    def start(body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
