"""`make bench-analytics`: both routes of analytics with ten million interactions in PostgreSQL.

Rows come from `generate_series`; the pipeline's roll-up counts them, as its sensor does; then more come, which are the
live tail. Each route is asked over HTTP, of a real API process, before and after the tail.
"""

import json
import statistics
import sys
import time
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
from pydantic import SecretStr
from rich.console import Console

from configs.postgres import DatabaseSettings
from pipelines.defs.analytics.activity import roll_up
from pipelines.resources import Installation
from tests.fixtures import bulk
from tests.fixtures.platform import Platform, running_platform

TENANT = "bench"
INTERACTIONS, EVENTS_PER_INSERT = 10_000_000, 250_000
USERS, ITEMS, IMPRESSIONS = 200_000, 50_000, 500_000
TAIL_INTERACTIONS, TAIL_IMPRESSIONS, TAIL_USERS = 5_000, 2_000, 500
"""What comes in the 10 s between two ticks of the sensor at 500 interactions a second."""
DAYS = 90
REQUESTS = 200
LIMIT_MS = 100.0
ROUTES = {
    "stats": "/api/analytics/stats",
    "data 7d": "/api/analytics/data?period=7d",
    "data 90d": "/api/analytics/data?period=90d",
}

console = Console(stderr=True)


@contextmanager
def timed(what: str, seconds: dict[str, float]) -> Any:
    began = time.perf_counter()
    yield
    seconds[what] = round(time.perf_counter() - began, 1)
    console.print(f"{what}: {seconds[what]} s")


def fill(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        bulk.add_users(connection, TENANT, USERS)
        bulk.add_items(connection, TENANT, ITEMS)
        with bulk.without_indexes(connection, "interactions"):
            batches = INTERACTIONS // EVENTS_PER_INSERT
            for number in reversed(range(batches)):  # as time goes by
                days = DAYS / batches
                bulk.add_interactions(
                    connection, TENANT, EVENTS_PER_INSERT, USERS, ITEMS, days, until_days_ago=number * days
                )
        bulk.add_impressions(connection, TENANT, IMPRESSIONS, USERS, ITEMS, DAYS)
        connection.execute("VACUUM (ANALYZE)")


def add_tail(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        bulk.add_users(connection, TENANT, TAIL_USERS, "new")
        bulk.add_interactions(connection, TENANT, TAIL_INTERACTIONS, USERS, ITEMS, 0.02)
        bulk.add_impressions(connection, TENANT, TAIL_IMPRESSIONS, USERS, ITEMS, 0.02)


def ask(client: httpx.Client, path: str) -> dict[str, float]:
    """Milliseconds of REQUESTS requests one after the other, the first ones included."""
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        client.get(path).raise_for_status()
        times.append((time.perf_counter() - began) * 1000)
    return {
        "first_ms": round(times[0], 1),
        "p50_ms": round(statistics.median(times), 1),
        "p99_ms": round(statistics.quantiles(times, n=100)[98], 1),
        "max_ms": round(max(times), 1),
    }


def measure(platform: Platform) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    url = platform.paths.database_url_file.read_text().strip()
    platform.cli("api", "create-tenant", "--id", TENANT, "--plan", "unlimited")
    password = platform.cli("api", "create-admin", "--tenant", TENANT, "--email", "admin@bench.example")
    with timed("rows", seconds):
        fill(url)
    installation = Installation(paths=platform.paths, database=DatabaseSettings(url=SecretStr(url)))
    with timed("first roll-up", seconds):
        roll_up(installation, TENANT)
    platform.start("api")
    results = {}
    with httpx.Client(base_url=platform.api_url, timeout=60) as client:
        answer = client.post("/api/auth/login", json={"email": "admin@bench.example", "password": password})
        client.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['token']}"
        for name, path in ROUTES.items():
            results[name] = ask(client, path)
            console.print(name, results[name])
        add_tail(url)
        for name, path in ROUTES.items():
            results[f"{name}, with a tail"] = ask(client, path)
            console.print(f"{name}, with a tail", results[f"{name}, with a tail"])
        before = client.get(ROUTES["stats"]).json()
        with timed("roll-up of the tail", seconds):
            roll_up(installation, TENANT)
        after = client.get(ROUTES["stats"]).json()
    assert before == after, (before, after)
    assert before["totalInteractions"] == INTERACTIONS + TAIL_INTERACTIONS
    return {"stats": after, "seconds": seconds, "routes": results}


def main() -> None:
    """JSON on stdout; exit 1 where a request took `LIMIT_MS` or more in its 99th percentile."""
    for platform in running_platform(api={"RATE_LIMIT_JWT": "1000000", "LOG_LEVEL": "INFO"}):
        found = measure(platform)
    print(json.dumps(found, indent=2))
    sys.exit(1 if any(route["p99_ms"] >= LIMIT_MS for route in found["routes"].values()) else 0)


if __name__ == "__main__":
    main()
