"""One measurement: a round of load on the demo, and the processor time that its programs spent on it."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.latency.generator import generate, send
from tests.benchmarks.load import Load
from tests.benchmarks.processor_time import program_seconds
from tests.benchmarks.running_demo import RunningDemo, Tenant

COUNT = 10
WARM_UP_SECONDS = 1.5
RECOMMEND = "/api/v1/recommend"

Round = dict[str, Any]
"""What one round found: requests, requests_per_second, p50_ms, p99_ms, cpu_ms by program, degraded, errors."""


def body_of(user: str, algorithm: str, exclude: Sequence[str] = ()) -> str:
    more = {"exclude": list(exclude)} if exclude else {}
    return json.dumps({"userId": user, "count": COUNT, "algorithm": algorithm, **more})


def warm_up(url: str, headers: Mapping[str, str], bodies: Sequence[str], clients: int) -> dict[str, Any]:
    """A short run that is not measured. Its failures count."""
    return send(url, dict(headers), bodies, clients, WARM_UP_SECONDS)


def measure(demo: RunningDemo, tenant: Tenant, bodies: Sequence[str], clients: int, seconds: float) -> Round:
    """Recommendations for bodies drawn at random, after a warm-up."""
    url = demo.api_url + RECOMMEND
    warming = warm_up(url, tenant.headers, bodies, clients)
    before, started = program_seconds(demo.paths), time.monotonic()
    found = send(url, tenant.headers, bodies, clients, seconds)
    wall = time.monotonic() - started
    return _with_failures({**found, **processor_time(demo, before, found["requests"]), "wall_s": wall}, warming)


def measure_first_requests(
    demo: RunningDemo, tenant: Tenant, users: Sequence[str], algorithm: str, clients: int
) -> Round:
    """One recommendation for each user."""
    bodies = [body_of(user, algorithm) for user in users]
    before = program_seconds(demo.paths)
    found = send(demo.api_url + RECOMMEND, tenant.headers, bodies, clients, 0, once=True)
    return {**found, **processor_time(demo, before, found["requests"])}


def measure_after(demo: RunningDemo, load: Load) -> Round:
    """A run of our own generator, in which each request follows another one that is not timed.

    The processor time of a turn is that of both.
    """
    before = program_seconds(demo.paths)
    found = generate(load)
    return {**found, **processor_time(demo, before, found["requests"])}


def processor_time(demo: RunningDemo, before: Mapping[str, float], requests: int) -> dict[str, dict[str, float]]:
    """`cpu_ms`: processor milliseconds a request since `before`, by program and in total."""
    after = program_seconds(demo.paths)
    spent = {program: 1000 * (after[program] - before[program]) / max(requests, 1) for program in after}
    return {
        "cpu_ms": {**{name: round(value, 3) for name, value in spent.items()}, "total": round(sum(spent.values()), 3)}
    }


def medians(rounds: Sequence[Round]) -> Round:
    """The median of each figure over the rounds, and the sum of what failed."""
    first = rounds[0]
    found: Round = {}
    for name, value in first.items():
        values = [each[name] for each in rounds]
        if name in ("degraded", "errors", "requests"):
            found[name] = sum(values)
        elif isinstance(value, dict):
            found[name] = {part: round(statistics.median(each[part] for each in values), 3) for part in value}
        else:
            found[name] = round(statistics.median(values), 3)
    return found


def _with_failures(found: Round, other: Mapping[str, Any]) -> Round:
    return {**found, **{name: found[name] + other[name] for name in ("degraded", "errors")}}
