"""`make bench-waits`: how long single calls may take, on real processes. The test suite asserts no time; this does.

- the largest metadata of an item is stored and found by a search within 5 s;
- a search of 60,000 items through the index answers within 10 s;
- a request whose twin is in flight is refused after 2 s and within 4 s;
- a trained model is logged to the MLflow server within 10 s.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
from rich.console import Console

from tests.api.items.test_search import LARGEST
from tests.fixtures.platform import Platform, running_platform, wait_until
from tests.training.catalogue import build_dataset
from training.models.contract import RuntimeOptions
from training.tracking.mlflow_store import Tracking
from training.train import train_family

TENANT = "bench"
ITEMS = 60_000
MUST_SECONDS = {"largest metadata": 5.0, "indexed search": 10.0, "twin in flight": 4.0, "MLflow log": 10.0}
IN_FLIGHT_SECONDS = 2.0
"""A twin waits for so long for the answer of the first, so no refusal comes earlier."""

console = Console(stderr=True)


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds by the clock that the call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def metadata_seconds(client: httpx.Client) -> Iterator[float]:
    """Seconds to store and find each kind of largest metadata."""
    for number, value in enumerate(LARGEST.values()):

        def store_and_find(name: str = f"needle{number}", value: Any = value) -> None:
            body = {"id": name, "metadata": {"zzz": value, "title": name}}
            client.post("/api/items", json=body).raise_for_status()
            found = client.get("/api/items", params={"search": name}).raise_for_status().json()
            assert [item["id"] for item in found["data"]] == [name]

        yield seconds_of(store_and_find)


def search_seconds(client: httpx.Client, url: str) -> Iterator[float]:
    """Seconds of searches with one hit, with a sixtieth of the catalogue, and in Japanese."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO items (tenant_id, id, metadata, version)
            SELECT %s, 'i' || n, jsonb_build_object('title', 'Item number ' || n || ' of ' || mod(n, 1000) || 'x',
                'text', chr(19968 + mod(n, 5000)) || chr(19968 + n / 5000) || '映画', 'kind', 'thing'), 1
            FROM generate_series(1, %s) AS n
            """,
            [TENANT, ITEMS],
        )
        connection.execute("VACUUM ANALYZE items")
    for search in ("12345", "number 777x", chr(19968 + 7) + "映画"):
        yield seconds_of(lambda search=search: client.get("/api/items", params={"search": search}).raise_for_status())


def twin_seconds(client: httpx.Client, url: str) -> Iterator[float]:
    """Seconds until the second of two equal requests is refused, while the first waits for a lock in the database."""

    def post() -> httpx.Response:
        headers = {"Idempotency-Key": "twin"}
        return client.post("/api/items", json={"id": "twin", "metadata": {}}, headers=headers)

    with psycopg.connect(url) as holding, ThreadPoolExecutor(1) as pool:
        holding.execute("UPDATE catalogues SET version = version")  # writers of items wait
        first = pool.submit(post)
        with psycopg.connect(url, autocommit=True) as looking:
            held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"
            wait_until("the first request", lambda: looking.execute(held).fetchone() is not None)
        answers: list[httpx.Response] = []
        yield seconds_of(lambda: answers.append(post()))
        assert answers[0].status_code == 409, answers[0].text
        holding.commit()
        assert first.result().status_code == 201


def log_seconds(platform: Platform) -> Iterator[float]:
    """Seconds to log a small model, after a first one."""
    trained = train_family("collaborative", build_dataset(), options=RuntimeOptions(threads=1))
    store = Tracking(platform.mlflow_url)
    store.log(trained, TENANT)
    yield seconds_of(lambda: store.log(trained, TENANT))


def measure(platform: Platform) -> dict[str, float]:
    """The longest wait of each kind, in seconds."""
    url = platform.paths.database_url_file.read_text().strip()
    platform.cli("api", "create-tenant", "--id", TENANT, "--plan", "unlimited")
    key = platform.cli("api", "create-key", "--tenant", TENANT, "--name", "bench", "--rate-limit", "none")
    platform.start("api", "mlflow")
    with httpx.Client(base_url=platform.api_url, headers={"X-API-Key": key}, timeout=60) as client:
        return {
            "largest metadata": max(metadata_seconds(client)),
            "indexed search": max(search_seconds(client, url)),
            "twin in flight": max(twin_seconds(client, url)),
            "MLflow log": max(log_seconds(platform)),
        }


def main() -> None:
    """JSON on stdout; exit 1 where something took longer than it must."""
    for platform in running_platform():
        found = measure(platform)
    print(json.dumps({name: {"seconds": round(found[name], 2), "must": most} for name, most in MUST_SECONDS.items()}))
    late = [name for name, most in MUST_SECONDS.items() if found[name] > most]
    console.print(f"too late: {', '.join(late)}" if late else "all in time")
    sys.exit(1 if late or found["twin in flight"] < IN_FLIGHT_SECONDS else 0)


if __name__ == "__main__":
    main()
