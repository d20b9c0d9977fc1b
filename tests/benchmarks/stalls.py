"""`make bench-stalls`: how long `/health` waits while eight clients send the worst legal requests.

For each kind of `tests.benchmarks.stall_bodies`, eight clients in a process of their own send it again and again to one
real API process over a real PostgreSQL. Another process asks `/health` every 20 ms, and measures from the moment at
which it meant to ask, so that a wait counts in full. No model server runs: popularity answers. A table goes to stderr,
JSON to stdout. Exit 1 where a kind makes `/health` wait for `MUST_MS` or more in the 99th percentile.

    python -m tests.benchmarks.stalls [--only WORDS] [--seconds N]
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from api.database.migrate import upgrade
from tests.benchmarks.stall_bodies import Kind, kinds
from tests.fixtures.live import ApiProcess, api_process
from tests.fixtures.platform import ROOT
from tests.fixtures.postgres import running_postgres

TENANT = "stalls"
CLIENTS = 8
SECONDS = 4.0
MUST_MS = 50.0
PROBE_SECONDS = 0.02
PATIENCE_SECONDS = 120.0
STORED = 100

console = Console(stderr=True, width=150)


async def probe(port: int, seconds: float) -> dict[str, float]:
    """Milliseconds from the moment a request was due to its answer, one every `PROBE_SECONDS`, one at a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    waits = []
    begin = time.perf_counter()
    due = begin
    while due < begin + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        writer.write(b"GET /health HTTP/1.1\r\nHost: probe\r\n\r\n")
        await _response(reader)
        now = time.perf_counter()
        # What was due while this one waited would have waited too.
        while due <= now:
            waits.append(1000 * (now - due))
            due += PROBE_SECONDS
    writer.close()
    p50, p99 = np.percentile(waits, [50, 99])
    return {"probes": len(waits), "p50_ms": round(p50, 1), "p99_ms": round(p99, 1), "max_ms": round(max(waits), 1)}


async def load(port: int, request: bytes, responses: int, seconds: float) -> dict[str, Any]:
    """Eight clients, each of which sends the request again once it is answered. Counts of answers by status."""
    statuses: Counter[str] = Counter()
    end = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
            try:
                while time.perf_counter() < end:
                    writer.write(request)
                    for _ in range(responses):
                        statuses[await _response(reader)] += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                statuses["closed"] += 1
            writer.close()

    if responses:
        clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
        _, waiting = await asyncio.wait(clients, timeout=seconds)
        for each in waiting:
            each.cancel()
        statuses["unanswered"] += len(waiting)
    return {"statuses": dict(statuses)}


async def _response(reader: asyncio.StreamReader) -> str:
    """Read one response; returns its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
    while length > 0:
        part = await reader.read(min(length, 1 << 20))
        if not part:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(part)
    return head.split(b" ", 2)[1].decode()


def measure(api: ApiProcess, kind: Kind, headers: dict[str, str], seconds: float) -> dict[str, Any]:
    """One kind under load, with both sides of the load in processes of their own."""
    port = int(api.url.rsplit(":", 1)[1])
    process = psutil.Process(api.process.pid)
    before = sum(process.cpu_times()[:2])
    with tempfile.NamedTemporaryFile() as file:
        file.write(kind.request(headers if kind.credential else {}))
        file.flush()
        sender = _start("load", port, seconds + 0.5, "--request", file.name, "--responses", str(kind.responses))
        time.sleep(0.3)
        prober = _start("probe", port, seconds)
        probed, sent = _finish(prober), _finish(sender)
    cpu = sum(process.cpu_times()[:2]) - before
    return {"kind": kind.name, **probed, "must_ms": MUST_MS, "api_cpu_seconds": round(cpu, 2), **sent}


def _start(role: str, port: int, seconds: float, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.stalls", "--role", role, "--port", str(port)]
    return subprocess.Popen([*command, "--seconds", str(seconds), *more], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    if process.returncode:
        raise RuntimeError(f"a part of the benchmark ended with status {process.returncode}")
    return dict(json.loads(output))


def prepare(url: str, state: Path) -> dict[str, str]:
    """A tenant without limits; returns the headers of its key."""
    upgrade(url)

    def cli(*arguments: str) -> str:
        environment = {"DATABASE_URL": url, "RECOMMENDAI_STATE_DIR": str(state)}
        return subprocess.run(
            [sys.executable, "-m", "api", *arguments],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    cli("create-tenant", "--id", TENANT, "--plan", "unlimited")
    return {"X-API-Key": cli("create-key", "--tenant", TENANT, "--name", TENANT, "--rate-limit", "none")}


def fill(api: ApiProcess, headers: dict[str, str]) -> None:
    """Items for lists, and the items and users that interactions name."""
    with httpx.Client(base_url=api.url, headers=headers, timeout=PATIENCE_SECONDS) as client:
        for first in range(0, STORED, 20):
            large = [{"id": f"0-{n}", "metadata": {"t": "tea and more " * 2_400}} for n in range(first, first + 20)]
            client.post("/api/items/batch", json=large).raise_for_status()
        small = [{"id": f"item-{number}", "metadata": {"title": f"Tea {number}"}} for number in range(1_000)]
        client.post("/api/items/batch", json=small).raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser(description="How long /health waits behind the worst legal requests.")
    parser.add_argument("--only", help="kinds whose name has these words")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each kind")
    for hidden in ("--role", "--port", "--request", "--responses"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role == "probe":
        print(json.dumps(asyncio.run(probe(int(given.port), given.seconds))))
    elif given.role == "load":
        request = Path(given.request).read_bytes()
        print(json.dumps(asyncio.run(load(int(given.port), request, int(given.responses), given.seconds))))
    else:
        chosen = [kind for kind in kinds() if given.only is None or given.only in kind.name]
        sys.exit(run(chosen, given.seconds))


def run(chosen: list[Kind], seconds: float) -> int:
    """Measure these kinds, each on an API process of its own, since work of one may go on after its load."""
    results = []
    with tempfile.TemporaryDirectory(prefix="recommendai-stalls-") as folder, running_postgres() as url:
        state = Path(folder)
        headers = prepare(url, state)
        limits = {"RATE_LIMIT_IP": "1000000000", "LOG_LEVEL": "WARNING", "SERVING_URL": "http://127.0.0.1:9"}
        for number, kind in enumerate(chosen):
            with api_process(url, state, **limits) as api:
                if number == 0:
                    fill(api, headers)
                results.append(measure(api, kind, headers, seconds))
            console.print(results[-1], highlight=False)
    console.print(_table(results))
    print(json.dumps({"clients": CLIENTS, "seconds": seconds, "results": results}, indent=2))
    return int(any(result["p99_ms"] >= MUST_MS for result in results))


def _table(results: list[dict[str, Any]]) -> Table:
    table = Table("kind", "p50 ms", "p99 ms", "must", "max ms", "API cpu s", "answers")
    for result in results:
        p99 = f"{result['p99_ms']}" if result["p99_ms"] < MUST_MS else f"[red]{result['p99_ms']}"
        answers = " ".join(f"{status}:{count}" for status, count in result["statuses"].items() if count)
        table.add_row(
            result["kind"],
            str(result["p50_ms"]),
            p99,
            f"< {MUST_MS:.0f}",
            str(result["max_ms"]),
            str(result["api_cpu_seconds"]),
            answers,
        )
    return table


if __name__ == "__main__":
    main()
