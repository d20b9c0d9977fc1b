"""`make bench-metering`: what metering costs, as the throughput with it over the throughput without it.

Two API processes over one PostgreSQL, the same but for metering: the tenant has a limit, so that each request is held
against it. They take turns in short rounds under the same load, one process at a time, and the ratio is that of rounds
that follow each other: what else the machine does meanwhile falls on both. Beside it stands the ratio of processor time
a request, which is what bounds the throughput of a process that has a core to itself, and which other load hardly
moves. No model server runs, so that popularity answers: next to a model's answer, which takes longer, metering costs
less than it does here.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import psycopg
from rich.console import Console

from configs.processes import shared_environment
from configs.settings import DatabaseSettings, PathSettings
from tests.benchmarks.load import Load
from tests.fixtures.platform import ROOT, Platform, answers, free_ports, wait_until

TENANT = "bench"
ITEMS = 1_000
CLIENTS = 16
ROUNDS = 8
SECONDS = 4.0
APPLICATIONS = {"metered": "api.asgi:application", "unmetered": "tests.benchmarks.unmetered:application"}
ROUTES: dict[str, list[dict[str, Any]]] = {
    "/api/v1/recommend": [{"userId": f"user-{n}", "count": 10} for n in range(200)],
    "/api/v1/interactions": [
        {"userId": f"user-{n}", "itemId": f"item-{n % ITEMS}", "interactionType": "view"} for n in range(200)
    ],
}

console = Console(stderr=True)


def prepare(platform: Platform) -> str:
    """A tenant on a plan with a limit that it never reaches, and its key."""
    platform.cli("api", "create-tenant", "--id", TENANT, "--plan", "plan-growth")
    key = platform.cli("api", "create-key", "--tenant", TENANT, "--name", "bench", "--rate-limit", "none")
    with psycopg.connect(DatabaseSettings().resolve(platform.paths)) as connection:
        connection.execute("INSERT INTO billing_settings (tenant_id, overage_cap_cents) VALUES (%s, 10^15)", [TENANT])
        connection.execute(
            "INSERT INTO items (tenant_id, version, id, metadata) "
            "SELECT %s, 0, 'item-' || n, '{}' FROM generate_series(0, %s) AS n",
            [TENANT, ITEMS],
        )
    return key


@dataclass(frozen=True)
class Served:
    """A running API."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextmanager
def serving(platform: Platform, application: str) -> Iterator["Served"]:
    """An API process; its log is beside those of the platform."""
    (port,) = free_ports(1)
    options = ["--loop", "uvloop", "--http", "httptools", "--ws", "none", "--no-access-log", "--log-level", "warning"]
    log = platform.paths.logs / f"{application.partition(':')[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", application, "--port", str(port), *options],
            cwd=ROOT,
            env={**os.environ, **shared_environment(platform.paths), **platform.api_environment},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(application, lambda: answers(f"http://127.0.0.1:{port}/health/ready"), 60)
        yield Served(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def measure(api: Served, key: str, path: str) -> dict[str, float]:
    """One round of the load generator, in a process of its own."""
    bodies = [json.dumps(body) for body in ROUTES[path]]
    # Without a warm-up, so that every request that took the API's time is one that is counted.
    load = Load("127.0.0.1", api.port, path, {"X-API-Key": key}, bodies, CLIENTS, SECONDS, warm_up_seconds=0)
    before = api.cpu_seconds()
    result = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.load"],
        input=json.dumps(load.__dict__),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = dict(json.loads(result.stdout))
    return {**answer, "cpu_ms": 1000 * (api.cpu_seconds() - before) / answer["requests"]}


def compare(served: dict[str, Served], key: str, path: str) -> dict[str, Any]:
    """The rounds of one route. Who goes first changes from round to round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in served}
    for number in range(ROUNDS):
        for name in sorted(served, reverse=number % 2 == 1):
            found[name].append(measure(served[name], key, path))
        console.print(path, json.dumps({name: rounds[-1] for name, rounds in found.items()}))
    pairs = list(zip(found["metered"], found["unmetered"], strict=True))
    ratios = sorted(on["requests_per_second"] / off["requests_per_second"] for on, off in pairs)
    cpu_ratios = sorted(off["cpu_ms"] / on["cpu_ms"] for on, off in pairs)

    def medians(figure: str) -> dict[str, float]:
        return {name: round(statistics.median(each[figure] for each in rounds), 3) for name, rounds in found.items()}

    return {
        "route": path,
        "clients": CLIENTS,
        "requests_per_second": medians("requests_per_second"),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "cpu_ms_per_request": medians("cpu_ms"),
        "cpu_ratio": round(statistics.median(cpu_ratios), 4),
        "cpu_ratios": [round(ratio, 4) for ratio in cpu_ratios],
        "errors": sum(each["errors"] for rounds in found.values() for each in rounds),
    }


def main() -> None:
    """Print JSON on stdout; exit 1 when an answer failed."""
    state = PathSettings().root / "bench-metering"
    state.mkdir(parents=True, exist_ok=True)
    platform = Platform.create(state, api={"LOG_LEVEL": "WARNING"})
    try:
        platform.boot()
        kept = state / "key"
        if not kept.exists():
            kept.write_text(prepare(platform))
        with ExitStack() as stack:
            served = {name: stack.enter_context(serving(platform, app)) for name, app in APPLICATIONS.items()}
            for api in served.values():  # its first request finds that no model server is there
                httpx.post(
                    f"http://127.0.0.1:{api.port}/api/v1/recommend",
                    headers={"X-API-Key": kept.read_text()},
                    json=ROUTES["/api/v1/recommend"][0],
                    timeout=30,
                ).raise_for_status()
            results = [compare(served, kept.read_text(), path) for path in ROUTES]
    finally:
        platform.supervisor.stop()
    errors = sum(each["errors"] for each in results)
    worst = {name: min(each[name] for each in results) for name in ("ratio", "cpu_ratio")}
    print(json.dumps({"results": results, **worst, "errors": errors}, indent=2))
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
