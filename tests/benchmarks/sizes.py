"""`make bench-sizes`: what a thousand requests and a million interactions take, in processor time and bytes.

    python -m tests.benchmarks.sizes [--requests 10000] [--interactions 1000000] [--state FOLDER]

It measures the running demo (`tests.benchmarks.running_demo`). Interactions go to a tenant of its own, which is new at
each run. A table is on stderr, JSON on stdout.

    processor   of each program, from /proc
    network     between a client and the API, HTTP heads included, from a sample of the requests
    database    by how much its files grow: tables and indexes, of impressions and usage too
    WAL         what PostgreSQL writes ahead, and sends to a standby or an archive
    disk        what API, model server and PostgreSQL give to the disk, WAL and logs included
    logs        what the files below `logs` grow by
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from configs.settings import PathSettings
from feature_store.exports import export_interactions, export_items
from feature_store.snapshots import build_snapshot
from tests.benchmarks.latency.generator import generate
from tests.benchmarks.latency.measure import RECOMMEND, body_of
from tests.benchmarks.latency.page import commit, machine
from tests.benchmarks.load import Load, exchange
from tests.benchmarks.processor_time import PROGRAMS, processes, program_seconds
from tests.benchmarks.running_demo import RATE_LIMIT, RunningDemo, Tenant, running_demo, unique
from tests.fixtures import bulk

ITEMS, USERS = 10_000, 5_000
CLIENTS = 16
INTERACTIONS_PER_REQUEST, BATCH_CLIENTS = 1_000, 2
SETTLE_SECONDS = 6.0
"""Within this time impressions, usage and log lines of the last requests are written."""
SAMPLED = 0.02
"""Share of the requests that are sent once more to count their bytes."""
BYTES = ("database", "WAL", "disk", "logs")
MEASURED = ("network in", "network out", *BYTES)
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Reading:
    """What has been used up to a moment."""

    seconds: dict[str, float]  # of a processor, by program
    bytes: dict[str, int]


def read_usage(demo: RunningDemo) -> Reading:
    """Processor time and bytes so far."""
    with psycopg.connect(demo.database_url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT pg_database_size(current_database()), pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
        ).fetchone()
    assert row is not None
    written = sum(_written_by(each) for program in PROGRAMS for each in processes(demo.paths, program))
    logs = sum(file.stat().st_size for file in demo.paths.logs.rglob("*") if file.is_file())
    return Reading(program_seconds(demo.paths), dict(zip(BYTES, (row[0], int(row[1]), written, logs), strict=True)))


def _written_by(process: int) -> int:
    """Bytes that a process has given to the disk; 0 where it has just ended."""
    try:
        text = Path(f"/proc/{process}/io").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(dict(line.split(": ") for line in text.splitlines())["write_bytes"])


def measure_load(
    demo: RunningDemo, tenant: Tenant, path: str, bodies: Sequence[str], clients: int, share: float
) -> dict[str, Any]:
    """Each body once.

    share: by what the figures are multiplied: 1,000 over the number of requests, or a million over that of rows.
    Raises RuntimeError where an answer failed.
    """
    place = urlsplit(demo.api_url)
    host, port = place.hostname or "", place.port or 80
    sent, received = asyncio.run(_traffic(host, port, path, tenant.headers, _sample(bodies)))
    before = read_usage(demo)
    found = generate(Load(host, port, path, tenant.headers, list(bodies), clients, 3600.0, rounds=1))
    time.sleep(SETTLE_SECONDS)
    after = read_usage(demo)
    if found["errors"] or found["requests"] != len(bodies):
        raise RuntimeError(f"{path}: {found}")
    in_all = len(bodies) * share
    return {
        "processor_s": {name: share * (after.seconds[name] - before.seconds[name]) for name in after.seconds},
        "MB": {
            "network in": in_all * sent / MEGABYTE,
            "network out": in_all * received / MEGABYTE,
            **{name: share * (after.bytes[name] - before.bytes[name]) / MEGABYTE for name in BYTES},
        },
        "degraded": found["degraded"],
    }


def _sample(bodies: Sequence[str]) -> Sequence[str]:
    return bodies[: max(1, round(SAMPLED * len(bodies)))]


async def _traffic(
    host: str, port: int, path: str, headers: dict[str, str], bodies: Sequence[str]
) -> tuple[float, float]:
    """Mean bytes of a request and of an answer."""
    reader, writer = await asyncio.open_connection(host, port)
    sent = received = 0
    for body in bodies:
        encoded = body.encode()
        own = {"Host": f"{host}:{port}", "Content-Type": "application/json", "Content-Length": str(len(encoded))}
        head = "".join(f"{name}: {value}\r\n" for name, value in {**own, **headers}.items())
        request = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + encoded
        answer_head, answer = await exchange(reader, writer, request)
        sent, received = sent + len(request), received + len(answer_head) + len(answer)
    writer.close()
    return sent / len(bodies), received / len(bodies)


def measure_files(demo: RunningDemo, tenant: Tenant, rows: int) -> dict[str, dict[str, Any]]:
    """Lake and features of the tenant's interactions, made in this process; per million."""
    share = 1_000_000 / rows
    with tempfile.TemporaryDirectory() as folder:
        lake, features = Path(folder, "lake"), Path(folder, "features")
        started = time.process_time()
        export_interactions(demo.database_url, lake, tenant.id)
        export_items(demo.database_url, lake, tenant.id)
        exported = time.process_time()
        build_snapshot(lake, features, tenant.id)
        built = time.process_time()
        return {
            "export to the lake": _of_files(share, exported - started, lake),
            "features": _of_files(share, built - exported, features),
        }


def _of_files(share: float, seconds: float, folder: Path) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"processor_s": {"pipelines": share * seconds}, "MB": {"disk": share * size / MEGABYTE}}


def new_tenant(demo: RunningDemo) -> Tenant:
    """A tenant with items and without interactions."""
    tenant_id = unique("sizes")
    demo.cli("api", "create-tenant", "--id", tenant_id, "--plan", "unlimited")
    with psycopg.connect(demo.database_url, autocommit=True) as connection:
        bulk.add_items(connection, tenant_id, ITEMS)
    limit = str(RATE_LIMIT)
    return Tenant(tenant_id, demo.cli("api", "create-key", "--tenant", tenant_id, "--name", "b", "--rate-limit", limit))


def _interaction(draw: random.Random, now: datetime) -> dict[str, Any]:
    """Some users and items have far more interactions than others."""
    return {
        "userId": f"user-{int(USERS * draw.random() ** 2)}",
        "itemId": f"item-{int(ITEMS * draw.random() ** 3)}",
        "interactionType": draw.choice(("view", "view", "click", "like", "purchase")),
        "timestamp": (now - timedelta(days=90 * draw.random())).isoformat(),
    }


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """A table on stderr, as Markdown writes it."""
    head = [title, "processor, s", "of that", *(f"{name}, MB" for name in MEASURED)]
    lines = [head, ["---"] * len(head)]
    for name, row in rows.items():
        spent, found = row["processor_s"], row["MB"]
        parts = ", ".join(f"{PROGRAMS.get(each, each)} {value:.2f}" for each, value in spent.items())
        sizes = [f"{found[each]:.2f}" if each in found else "" for each in MEASURED]
        lines.append([name, f"{sum(spent.values()):.2f}", parts, *sizes])
    for line in lines:
        print(f"| {' | '.join(line)} |", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sizes", description="Sizes and processor time.")
    parser.add_argument("--requests", type=int, default=10_000, help="of each kind")
    parser.add_argument("--interactions", type=int, default=1_000_000, help="in batches")
    parser.add_argument("--state", type=Path, default=PathSettings().root / "bench-latency", help="of the demo; kept")
    given = parser.parse_args()
    draw, now = random.Random(0), datetime.now(UTC)
    with running_demo(given.state) as demo:
        films, own = demo.tenant(), new_tenant(demo)
        users = demo.users(films, USERS)
        recommend = [body_of(draw.choice(users), "hybrid") for _ in range(given.requests)]
        single = [json.dumps(_interaction(draw, now)) for _ in range(given.requests)]
        share = 1_000 / given.requests
        requests = {
            "recommend, hybrid": measure_load(demo, films, RECOMMEND, recommend, CLIENTS, share),
            "interaction": measure_load(demo, own, "/api/v1/interactions", single, CLIENTS, share),
        }
        show("per thousand requests", requests)
        batches = [
            json.dumps([_interaction(draw, now) for _ in range(INTERACTIONS_PER_REQUEST)])
            for _ in range(max(1, given.interactions // INTERACTIONS_PER_REQUEST))
        ]
        rows = INTERACTIONS_PER_REQUEST * len(batches)
        path = "/api/v1/interactions/batch"
        million = {
            "taken in by batches of 1,000": measure_load(demo, own, path, batches, BATCH_CLIENTS, 1_000_000 / rows),
        }
        stored = rows + len(single) + len(_sample(single)) + INTERACTIONS_PER_REQUEST * len(_sample(batches))
        million |= measure_files(demo, own, stored)
        show("per million interactions", million)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    figures = {"per_thousand_requests": requests, "per_million_interactions": million}
    print(json.dumps({"date": date, "commit": commit(), "machine": machine(), **figures}, indent=2))


if __name__ == "__main__":
    main()
