"""Releases are swapped in under load: of the tenant that is asked, and of its neighbour."""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.latency.fresh import TOLERANCE
from tests.benchmarks.latency.rows import JOURNEY
from tests.benchmarks.new_release import altered_copy, await_release, newest_release, publish_again
from tests.benchmarks.reliability.answers import Answer, counts, milliseconds, recommendations, traffic
from tests.benchmarks.running_demo import RunningDemo, Tenant

USERS = 200
SETTLED_SECONDS = 3.0
NEIGHBOUR = "neighbour"
NEIGHBOUR_SWAPS = 3
MOVED = 1.5
"""The innocent tenant's p99 may not be more than so many times what it is without a neighbour's swap."""

JSON = {"Content-Type": "application/json"}

Ranking = list[tuple[str, float]]


def swap(demo: RunningDemo, tenant: Tenant, answers: int, **_: Any) -> dict[str, Any]:
    """Two releases that rank differently take turns, until so many answers have come.

    An answer that mixes them has the release of one in its header, and items or scores of the other.
    """
    users = demo.users(tenant, USERS)
    requests = recommendations(users)
    found: list[dict[str, Any]] = []
    mixed, seconds = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        first = newest_release(demo, tenant.id)  # will be pruned, and so is copied
        original = Path(shutil.copytree(first, Path(folder, "original")))
        altered = altered_copy(first, Path(folder, "altered"))
        variants: dict[str, str] = {}  # by release
        rankings: dict[str, dict[tuple[str, str], Ranking]] = {}  # by variant and request
        for variant in (altered, original):
            release = publish_again(demo, tenant.id, variant)
            await_release(demo, tenant.id, release)
            variants[release] = variant.name
            rankings[variant.name] = _ask_all(demo, tenant, requests)
        differing = sum(rankings["original"][each] != rankings["altered"][each] for each in requests)
        if differing < len(requests):
            raise RuntimeError(f"the two releases answer alike for {len(requests) - differing} users")
        while sum(each["answers"] for each in found) < answers:
            with traffic(demo.api_url, tenant.headers, requests) as seen:
                started = time.monotonic()
                for variant in (altered, original):
                    release = publish_again(demo, tenant.id, variant)
                    variants[release] = variant.name
                    await_release(demo, tenant.id, release)
                    time.sleep(SETTLED_SECONDS)
                seconds += time.monotonic() - started
            mixed += sum(_is_mixed(answer, variants, rankings) for answer in seen.answers if answer.from_a_model)
            found.append({**counts(seen), **milliseconds(seen.answers)})
    total = {name: sum(each[name] for each in found) for name in counts(seen)}
    failed = total["cut_off"] + total["other"] + total["status_503"]
    return {
        **total,
        "swaps": 2 * len(found),
        "mixed": mixed,
        "seconds": round(seconds, 1),
        "p99_ms": max(each["p99_ms"] for each in found),
        "max_ms": max(each["max_ms"] for each in found),
        "verdicts": {"none failed": failed == 0, "none degraded": total["degraded"] == 0, "none mixed": mixed == 0},
    }


def neighbour(demo: RunningDemo, tenant: Tenant, seconds: float, **_: Any) -> dict[str, Any]:
    """Another tenant's release is swapped, that of complete-journey where the demo has it."""
    requests = recommendations(demo.users(tenant, USERS))
    other = JOURNEY if JOURNEY in demo.releases() else NEIGHBOUR
    source = newest_release(demo, other if other == JOURNEY else tenant.id)
    with traffic(demo.api_url, tenant.headers, requests) as without:
        time.sleep(seconds)
    spent: list[float] = []
    with traffic(demo.api_url, tenant.headers, requests) as swapped:
        for _ in range(NEIGHBOUR_SWAPS):
            started = time.monotonic()
            await_release(demo, other, publish_again(demo, other, source))
            spent.append(time.monotonic() - started)
            source = newest_release(demo, other)
    calm, moved = milliseconds(without.answers), milliseconds(swapped.answers)
    count = counts(swapped)
    return {
        **count,
        "other": other,
        "swap_seconds": [round(each, 1) for each in spent],
        "without": {**calm, "degraded": counts(without)["degraded"]},
        **moved,
        "verdicts": {
            "none failed or degraded": count["from_models"] == count["answers"],
            f"p99 within {MOVED} of that without": moved["p99_ms"] <= MOVED * calm["p99_ms"],
        },
    }


def _ask_all(demo: RunningDemo, tenant: Tenant, requests: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Ranking]:
    with httpx.Client(base_url=demo.api_url, headers=tenant.headers, timeout=60) as client:
        return {
            (path, body): _ranking(client.post(path, content=body, headers=JSON).raise_for_status().content)
            for path, body in requests
        }


def _ranking(body: bytes | str) -> Ranking:
    return [(row["itemId"], row["score"]) for row in json.loads(body)]


def _is_mixed(answer: Answer, variants: dict[str, str], rankings: dict[str, dict[tuple[str, str], Ranking]]) -> bool:
    """Whether the answer is another than the release of its header gives."""
    expected = rankings[variants[answer.release]][answer.request]
    found = _ranking(answer.body)
    return len(found) != len(expected) or any(
        one[0] != other[0] or abs(one[1] - other[1]) > TOLERANCE for one, other in zip(found, expected, strict=True)
    )
