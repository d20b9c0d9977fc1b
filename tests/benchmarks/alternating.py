"""Two states of one API process, measured in turns under the same load.

Two processes of the same code differ by more than most things cost, so one process is switched. Short rounds take
turns, and the ratio is that of rounds that follow each other: what else the machine does meanwhile falls on both.
Beside it stands the ratio of processor time a request, which is what bounds the throughput of a process that has a core
to itself, and which other load moves less. Each comes with the 95 % interval of the median (bootstrap over pairs of
rounds). No model server runs, so that popularity answers.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import psutil
import psycopg
from rich.console import Console
from rich.progress import track

from configs.local.processes import shared_environment
from configs.postgres import DatabaseSettings
from tests.benchmarks.load import Load
from tests.fixtures.platform import ROOT, Platform, answers, free_ports, wait_until

TENANT = "bench"
ITEMS = 1_000
CLIENTS = 16
ROUNDS = 20
SECONDS = 1.5

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

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextmanager
def serving(platform: Platform, application: str) -> Iterator["Served"]:
    """The process of an API that has a route for each of its states; its log is beside those of the platform.

    application: the factory, as `module:function`.
    """
    (port,) = free_ports(1)
    options = ["--loop", "uvloop", "--http", "httptools", "--ws", "none", "--no-access-log", "--log-level", "warning"]
    log = platform.paths.logs / "bench-api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", application, "--port", str(port), *options],
            cwd=ROOT,
            env={**os.environ, **shared_environment(platform.paths), **platform.api_environment},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until("the API", lambda: answers(f"http://127.0.0.1:{port}/health/ready"), 60)
        yield Served(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def measure(api: Served, key: str, path: str, state: str, bodies: Sequence[dict[str, Any]]) -> dict[str, float]:
    """One round of the load generator, in a process of its own."""
    httpx.get(f"{api.url}/{state}").raise_for_status()
    # Without a warm-up, so that every request that took the API's time is one that is counted.
    texts = [json.dumps(body) for body in bodies]
    load = Load("127.0.0.1", api.port, path, {"X-API-Key": key}, texts, CLIENTS, SECONDS, warm_up_seconds=0)
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


def compare(
    api: Served, key: str, path: str, bodies: Sequence[dict[str, Any]], states: tuple[str, str], rounds: int = ROUNDS
) -> dict[str, Any]:
    """The rounds of one route. Which state goes first changes from pair to pair.

    states: with the cost, and without it. The ratios are below 1 where it costs something.
    """
    found: dict[str, list[dict[str, float]]] = {state: [] for state in states}
    for number in track(range(rounds), path, console=console):
        for state in states if number % 2 else states[::-1]:
            found[state].append(measure(api, key, path, state, bodies))
    figures = {
        figure: {state: np.array([each[figure] for each in measured]) for state, measured in found.items()}
        for figure in ("requests_per_second", "cpu_ms")
    }
    throughput, cpu = figures["requests_per_second"], figures["cpu_ms"]
    dear, cheap = states
    return {
        "route": path,
        "clients": CLIENTS,
        "requests": {state: int(sum(each["requests"] for each in measured)) for state, measured in found.items()},
        **{
            name: {state: round(float(np.median(each)), 3) for state, each in of.items()}
            for name, of in figures.items()
        },
        "ratio": _median(throughput[dear] / throughput[cheap]),
        "cpu_ratio": _median(cpu[cheap] / cpu[dear]),
        "errors": sum(each["errors"] for measured in found.values() for each in measured),
    }


def _median(ratios: npt.NDArray[np.float64]) -> dict[str, float]:
    """The median and its interval."""
    draws = np.random.default_rng(0).choice(ratios, (2_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {"median": round(float(np.median(ratios)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}
