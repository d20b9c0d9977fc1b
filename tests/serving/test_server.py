"""The BentoML service as a real process: hot swap, restart, the catalogue handshake, and bodies that are no batch."""

import json
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from serving.contracts.messages import (
    BATCH_PATH,
    RELEASES_PATH,
    BatchRequest,
    BatchResponse,
    RecommendQuery,
    SimilarQuery,
)
from serving.contracts.protocol import NEWEST, SPOKEN
from serving.release import release_folder
from tests.fixtures.model_server import ModelServer, model_server
from tests.fixtures.platform import wait_until
from tests.fixtures.releases import CATALOGUE_VERSION, FAMILIES, TENANT, delta, item_id, likes, publish_small

pytestmark = pytest.mark.service

MEDIA_TYPE = SPOKEN[NEWEST].media_type
COMEDIES = [item_id("comedy", number) for number in range(1, 5)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with model_server(tmp_path_factory.mktemp("state")) as server:
        server.start()
        assert server.releases() == {}  # ready also without a release
        server.await_release(TENANT, publish(server))
        yield server


def publish(server: ModelServer, **options: Any) -> str:
    return publish_small(server.paths.bentoml, server.paths.root / "work", **options)


def post(server: ModelServer, body: bytes, content_type: str = MEDIA_TYPE) -> httpx.Response:
    headers = {**authorization(server), "content-type": content_type}
    return httpx.post(server.url + BATCH_PATH, content=body, headers=headers, timeout=10)


def authorization(server: ModelServer) -> dict[str, str]:
    return {"authorization": str(server.settings.authorization)}


def ask(server: ModelServer, request: BatchRequest) -> BatchResponse:
    response = post(server, msgspec.msgpack.encode(request)).raise_for_status()
    return msgspec.msgpack.decode(response.content, type=BatchResponse)


def batch(*queries: Any, version: int = CATALOGUE_VERSION, tenant: str = TENANT, **rest: Any) -> BatchRequest:
    return BatchRequest(tenant, version, list(queries), **rest)


def test_a_batch_is_answered_by_the_served_release(server: ModelServer) -> None:
    response = ask(server, batch(RecommendQuery("collaborative", 5, likes(*COMEDIES)), SimilarQuery("horror-1", 3)))
    assert response.status == "ok"
    assert [len(answer) for answer in response.answers] == [5, 3]
    info = server.releases()[TENANT]
    assert info["release"] == response.release
    assert info["families"] == dict.fromkeys(FAMILIES, "1")


def test_a_tenant_without_a_release_is_told_so(server: ModelServer) -> None:
    assert ask(server, batch(RecommendQuery("hybrid", 5), tenant="nobody")) == BatchResponse("no_release")


def test_the_catalogue_delta_is_asked_for_and_counts(server: ModelServer) -> None:
    query = SimilarQuery("horror-3", 100)
    asked = ask(server, batch(query, version=20))
    assert (asked.status, asked.catalogue_version) == ("delta_needed", CATALOGUE_VERSION)
    metadata = {"title": "horror horror3", "genres": ["horror", "film"], "year": 1983}
    laid = ask(server, batch(query, version=20, delta=delta(20, ("new", metadata, True), ("horror-5", None, False))))
    items = [item.item_id for item in laid.answers[0]]
    assert "new" in items
    assert "horror-5" not in items
    assert server.releases()[TENANT]["catalogue_version"] == 20


def test_every_query_is_logged_with_its_trace_id(server: ModelServer) -> None:
    ask(
        server,
        batch(RecommendQuery("collaborative", 2, trace_id="a" * 32), SimilarQuery("horror-1", 2, trace_id="b" * 32)),
    )
    wait_until("the log", lambda: "b" * 32 in server.log)
    for trace in ("a" * 32, "b" * 32):
        (line,) = [json.loads(line) for line in server.log.splitlines() if trace in line]
        assert (line["trace_id"], line["tenant_id"], line["program"], line["items"]) == (trace, TENANT, "serving", 2)


class Exploit:
    """What an attacker would pickle: opening it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("content_type", [MEDIA_TYPE, "application/vnd.bentoml+pickle", "application/octet-stream"])
def test_a_malicious_pickle_is_refused_unopened(server: ModelServer, tmp_path: Path, content_type: str) -> None:
    target = tmp_path / "owned"
    body = pickle.dumps(Exploit(target))
    for path in (BATCH_PATH, "/v1/recommend", "/recommend", "/"):
        headers = {**authorization(server), "content-type": content_type}
        response = httpx.post(server.url + path, content=body, headers=headers)
        assert 400 <= response.status_code < 500
    assert not target.exists()


VALID = msgspec.msgpack.encode(batch(RecommendQuery("collaborative", 5, likes(*COMEDIES))))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        VALID[:-1],
        VALID + b"\x00",
        b"\x91" * 200_000,
        msgspec.msgpack.encode({"tenant_id": TENANT}),
        msgspec.msgpack.encode({"tenant_id": 3, "catalogue_version": 1, "queries": []}),
        msgspec.msgpack.encode(batch({"type": "recommend", "algorithm": 3, "count": 5})),
        msgspec.msgpack.encode(batch({"type": "recommend", "algorithm": "hybrid", "count": 0})),
        msgspec.msgpack.encode(batch({"type": "recommend", "algorithm": "hybrid", "count": 101})),
        msgspec.msgpack.encode(batch({"type": "recommend", "algorithm": "hybrid", "count": 5, "diversity": 1.5})),
        msgspec.msgpack.encode(batch({"type": "similar", "item_id": "a", "count": 1, "filter": {"type": "nor"}})),
    ],
)
def test_what_is_no_batch_is_a_400_that_says_why(server: ModelServer, body: bytes) -> None:
    response = post(server, body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert "not a batch" in response.json()["detail"]


def test_a_filter_nested_without_end_is_refused(server: ModelServer) -> None:
    condition: dict[str, Any] = {"type": "exists", "path": ["a"]}
    for _ in range(400):
        condition = {"type": "not", "filter": condition}
    response = post(
        server,
        msgspec.msgpack.encode(batch({"type": "similar", "item_id": "horror-1", "count": 1, "filter": condition})),
    )
    assert response.status_code in (200, 400)
    assert ask(server, batch(SimilarQuery("horror-1", 1), version=20)).status == "ok"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", BATCH_PATH, 405), ("POST", RELEASES_PATH, 405), ("GET", "/v1/x", 404)]
)
def test_other_routes_and_methods_are_refused(server: ModelServer, method: str, path: str, status: int) -> None:
    assert httpx.request(method, server.url + path, headers=authorization(server)).status_code == status


def test_without_the_installations_secret_every_route_but_health_is_refused(server: ModelServer) -> None:
    newer = CATALOGUE_VERSION + 50
    hidden = delta(newer, (COMEDIES[0], None, False))  # would hide an item until the next release
    request = msgspec.msgpack.encode(batch(version=newer, delta=hidden))
    for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": ""}):
        headers = {**given, "content-type": MEDIA_TYPE}
        assert httpx.post(server.url + BATCH_PATH, content=request, headers=headers).status_code == 401
        assert httpx.get(server.url + RELEASES_PATH, headers=given).status_code == 401
        # BentoML's own routes, and what a path may look like to one reader and not to another
        for path in (
            "/",
            "/docs.json",
            "/schema.json",
            "/metrics",
            "/static_content/x",
            "/v1",
            "//v1/releases",
        ):
            for method in ("GET", "POST", "HEAD", "OPTIONS"):
                answer = httpx.request(method, server.url + path, headers=given)
                assert answer.status_code == 401, (method, path)
    assert httpx.get(server.url + "/schema.json", headers=authorization(server)).status_code == 404
    for probe in ("/readyz", "/livez", "/healthz"):
        assert httpx.get(server.url + probe).status_code == 200
    assert server.releases()[TENANT]["catalogue_version"] != newer
    assert server.paths.serving_secret_file.stat().st_mode & 0o777 == 0o600


def test_a_newer_release_is_swapped_in_while_requests_run_and_none_fails(server: ModelServer) -> None:
    stop = threading.Event()
    seen: list[str] = []
    failures: list[object] = []

    def keep_asking() -> None:
        request = msgspec.msgpack.encode(batch(RecommendQuery("collaborative", 5, likes(*COMEDIES)), version=0))
        headers = {**authorization(server), "content-type": MEDIA_TYPE}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
            while not stop.is_set():
                try:
                    response = client.post(BATCH_PATH, content=request)
                    answer = msgspec.msgpack.decode(response.raise_for_status().content, type=BatchResponse)
                    if answer.status != "ok" or len(answer.answers[0]) != 5:
                        failures.append(answer)
                    seen.append(answer.release)
                except (httpx.HTTPError, msgspec.DecodeError) as error:
                    failures.append(error)

    callers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        published = [publish(server)]
        server.await_release(TENANT, published[-1])
        broken = publish(server)
        (release_folder(server.paths.bentoml, TENANT, broken) / "items.parquet").write_bytes(b"broken")
        published.append(publish(server))
        server.await_release(TENANT, published[-1])
        time.sleep(0.2)
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert not failures
    assert len(seen) > 50
    assert set(published) <= set(seen)


def test_a_killed_server_serves_the_newest_release_again_soon_after_it_is_started(tmp_path: Path) -> None:
    with model_server(tmp_path / "state") as server:
        release = publish(server)
        server.start()
        server.await_release(TENANT, release)
        server.kill()
        newer = publish(server)
        server.start()
        response = ask(server, batch(RecommendQuery("collaborative", 5, likes(*COMEDIES))))
        assert (response.status, response.release) == ("ok", newer)


def test_a_worker_whose_parent_was_killed_ends_and_frees_the_port(tmp_path: Path) -> None:
    with model_server(tmp_path / "state") as server:
        server.start()
        orphans = server.kill_parent_only()
        assert orphans
        try:
            wait_until("the end of the orphans", lambda: not any(map(psutil.Process.is_running, orphans)))
        finally:
            for orphan in orphans:
                if orphan.is_running():
                    orphan.kill()
        server.start()


def test_metrics_count_batches_and_name_releases_for_whom_has_the_secret(server: ModelServer) -> None:
    assert httpx.get(f"{server.url}/metrics").status_code == 401
    query = RecommendQuery("hybrid", 3, likes(COMEDIES[0]), ["counted-by-the-metrics"])

    def counted(name: str) -> float:
        text = httpx.get(f"{server.url}/metrics", headers=authorization(server)).raise_for_status().text
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))

    batches, queries = counted("recommendai_batch_queries_count"), counted("recommendai_batch_queries_sum")
    computed, kept = (counted(f'recommendai_answers_total{{source="{each}"}}') for each in ("model", "cache"))
    for _ in range(2):
        assert ask(server, BatchRequest(TENANT, CATALOGUE_VERSION, [query, query])).status == "ok"
    assert counted("recommendai_batch_queries_count") == batches + 2
    assert counted("recommendai_batch_queries_sum") == queries + 4
    assert counted('recommendai_answers_total{source="model"}') == computed + 2
    assert counted('recommendai_answers_total{source="cache"}') == kept + 2
    assert counted("recommendai_releases") == 1
    assert counted(f'recommendai_release_age_seconds{{tenant="{TENANT}"}}') > 0
    assert counted("recommendai_releases_bytes") > 1_000
