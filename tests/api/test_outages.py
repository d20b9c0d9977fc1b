"""The API while what it needs is killed, hung, garbage or restarted: labelled answers, 503, and recovery without help.

The parts are real processes. How long an answer takes meanwhile is judged by `make bench-*`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from api.database.migrate import upgrade
from tests.api.conftest import Tenants
from tests.fixtures.folders import open_folder
from tests.fixtures.live import api_process
from tests.fixtures.model_server import ModelServer, model_server
from tests.fixtures.platform import PATIENCE_SECONDS, ROOT, free_ports, wait_until
from tests.fixtures.releases import TENANT, publish_small, small_dataset

pytestmark = pytest.mark.service

CALLERS = 8
RECOMMEND = {"userId": "ann", "count": 5, "algorithm": "collaborative"}
GARBAGE = (b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nnothing", b"\x00\xff no HTTP at all \r\n\r\n")


class Callers:
    """Threads that call without a pause, and what they got, until the block ends."""

    def __init__(self, call: Callable[[httpx.Client, int], str]) -> None:
        self.seen: Counter[str] = Counter()
        self._call = call
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CALLERS)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        with httpx.Client(timeout=PATIENCE_SECONDS) as http:
            while not self._stop.is_set():
                self.seen[self._call(http, number)] += 1

    def await_some(self, outcome: str, count: int = 20) -> None:
        """Wait for so many more of these outcomes."""
        wanted = self.seen[outcome] + count
        wait_until(f"{count} times {outcome}: {self.seen}", lambda: self.seen[outcome] >= wanted)


@pytest.fixture(scope="module")
def outage_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with model_server(tmp_path_factory.mktemp("state")) as server:
        publish_small(server.paths.bentoml, server.paths.root / "work")
        server.start()
        yield server


@pytest.fixture
def films(
    outage_server: ModelServer, tenants: Tenants, database_url: str, tmp_path: Path
) -> Iterator[Callable[[httpx.Client, int], str]]:
    """Asks for recommendations and says who answered: "models", why it is degraded, or the status."""
    key = tenants.key(tenants.create(TENANT), rate_limit=0)
    rows = [(TENANT, item, json.dumps(metadata)) for item, metadata in _items()]
    with psycopg.connect(database_url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO items (tenant_id, id, metadata, version) VALUES (%s, %s, %s, 0)", rows)
    secret = outage_server.settings.secret
    assert secret is not None
    with api_process(
        database_url,
        tmp_path,
        SERVING_URL=outage_server.url,
        SERVING_SECRET=secret.get_secret_value(),
        LOG_LEVEL="WARNING",
    ) as api:

        def recommend(http: httpx.Client, number: int) -> str:
            answer = http.post(f"{api.url}/api/v1/recommend", json=RECOMMEND, headers=key)
            if answer.status_code != 200 or len(answer.json()) != 5:
                return f"status {answer.status_code}, {answer.text}"
            return answer.headers.get("X-Recommendation-Degraded", "models")

        yield recommend


def _items() -> list[tuple[str, object]]:
    items = small_dataset().items
    return list(zip(items.ids, items.metadata, strict=True))


@contextmanager
def garbage_server(port: int) -> Iterator[None]:
    """Another program on the model server's port. It answers with nonsense of two kinds in turn."""
    code = f"""
import itertools, socketserver
answers = itertools.cycle({GARBAGE!r})
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(65536):
            self.request.sendall(next(answers))
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
with Server(("127.0.0.1", {port}), Handler) as server:
    print("ready", flush=True)
    server.serve_forever()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait()


def test_a_hung_and_a_killed_model_server_and_garbage_in_its_place_are_labelled_fallbacks_until_it_is_back(
    films: Callable[[httpx.Client, int], str], outage_server: ModelServer
) -> None:
    with Callers(films) as callers:
        callers.await_some("models")
        outage_server.signal_worker(signal.SIGSTOP)
        callers.await_some("serving-unavailable", 100)
        outage_server.signal_worker(signal.SIGCONT)
        callers.await_some("models")
        outage_server.kill()
        callers.await_some("serving-unavailable", 100)
        with garbage_server(outage_server.port):
            callers.await_some("serving-unavailable", 100)
        outage_server.start()
        callers.await_some("models")
    assert callers.seen.keys() == {"models", "serving-unavailable"}


@pytest.fixture
def state() -> Iterator[Path]:
    folder = open_folder("postgres")
    yield folder
    shutil.rmtree(folder)


class Postgres:
    """A bundled server that is stopped and started again on the same port."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it and return its URL once it takes connections."""
        environment = {
            "RECOMMENDAI_STATE_DIR": str(self._state),
            "POSTGRES_PORT": str(self._port),
            "POSTGRES_SHARED_BUFFERS": "64MB",
        }
        with (self._state / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "api", "postgres"],
                cwd=ROOT,
                env={**_environment(), **environment},
                stdout=log,
                stderr=log,
            )
        url_file = self._state / "database.url"
        wait_until("PostgreSQL", lambda: url_file.exists() and _connects(url_file.read_text().strip()))
        return (self._state / "database-owner.url").read_text().strip()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def test_while_postgresql_is_restarted_requests_get_503_and_no_acknowledged_interaction_is_lost(
    state: Path, tmp_path: Path
) -> None:
    postgres = Postgres(state)
    acknowledged: list[str] = []
    try:
        url = postgres.start()
        upgrade(url)
        tenants = Tenants(url)
        key = tenants.key(tenants.create(), rate_limit=0)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO items (tenant_id, id, metadata, version) VALUES ('acme', 'a', '{}', 0)")
        with api_process(url, tmp_path, LOG_LEVEL="WARNING") as api:

            def interact(http: httpx.Client, number: int) -> str:
                body = {"userId": f"user-{uuid4()}", "itemId": "a", "interactionType": "click"}
                answer = http.post(f"{api.url}/api/v1/interactions", json=body, headers=key)
                if answer.status_code == 201:
                    acknowledged.append(body["userId"])
                    return "201"
                return f"{answer.status_code}, retry after {answer.headers.get('retry-after')}"

            refused = "503, retry after 1"
            with Callers(interact) as callers:
                for _ in range(2):
                    callers.await_some("201")
                    postgres.stop()
                    callers.await_some(refused)
                    postgres.start()
                callers.await_some("201")
            assert callers.seen.keys() == {"201", refused}
        with psycopg.connect(url) as connection:
            stored = {row[0] for row in connection.execute("SELECT user_id FROM interactions")}
        assert set(acknowledged) <= stored
    finally:
        postgres.stop()
