"""What clients see while something is broken: half of the requests ask for recommendations, half write interactions."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg

from tests.benchmarks.latency.fresh import INTERACTIONS, TOLERANCE
from tests.benchmarks.latency.measure import COUNT
from tests.benchmarks.reliability.answers import CUT_OFF, Answer, recommendations, traffic
from tests.benchmarks.reliability.database import an_item
from tests.benchmarks.running_demo import RunningDemo, Tenant, unique

CALLERS = 8
READERS = 50
MOST_USERS = 20_000
WRITER = "fault"
"""How the ids of users begin for whom interactions are written. Their recommendations change, so none is a reader."""
CALM_SECONDS = 2.0
AFTER_SECONDS = 6.0
MODEL_SECONDS = 60.0
SLOW_SECONDS = 2.0
"""An answer that takes longer is not normal: a client that waits for a program to come back waits for its answer."""

Trouble = Callable[[], float]
"""Breaks something, and waits until it is whole. Returns the moment at which the cause was gone: for a killed program,
when it was killed. The moment is of the monotonic clock."""


@dataclass
class FaultRow:
    """What one fault did to the clients. `promises` holds what is promised of it, and whether it was kept."""

    fault: str
    answers: int = 0
    acknowledged: int = 0
    lost: int = 0
    wrong: int = 0
    server_errors: int = 0  # 5xx other than 503
    unavailable: int = 0  # 503
    cut_off: int = 0
    degraded: int = 0
    recovery_seconds: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    promises: dict[str, bool] = field(default_factory=dict)


def under_load(
    name: str, demo: RunningDemo, tenant: Tenant, trouble: Trouble, url: str = "", may_cut_off: bool = False
) -> FaultRow:
    """Traffic before, during and after the trouble, and what came of it.

    Wrong is a list under no label of a fallback which is another than the same release gave for the same user before,
    and a list of another length. may_cut_off: whether connections break by the nature of the fault.
    """
    url = url or demo.api_url
    item, prefix = an_item(demo, tenant), unique(WRITER)
    people = [user for user in demo.users(tenant, MOST_USERS) if not user.startswith(WRITER)]
    readers = recommendations(people[:READERS])
    writers = [f"{prefix}-{number}" for number in range(len(readers))]
    writes = [
        (INTERACTIONS, json.dumps({"userId": user, "itemId": item, "interactionType": "view"})) for user in writers
    ]
    requests = [each for pair in zip(readers, writes, strict=True) for each in pair]
    expected = _rankings(url, tenant, readers)
    with traffic(url, tenant.headers, requests, CALLERS) as seen:
        time.sleep(CALM_SECONDS)
        began = time.monotonic()
        cause_gone = trouble()
        whole = time.monotonic()
        time.sleep(AFTER_SECONDS)
    acknowledged = {
        json.loads(answer.body)["interactionId"]
        for answer in seen.answers
        if answer.request[0] == INTERACTIONS and answer.status == 201
    }
    written = _written(demo, tenant, writers)
    wrong = [answer for answer in seen.answers if _is_wrong(answer, expected)]
    errors = [answer for answer in seen.answers if answer.status >= 500 and answer.status != 503]
    unwanted = [
        answer for answer in seen.answers if answer.status not in (200, 201, 503, CUT_OFF) and answer not in errors
    ]
    cut_off = sum(answer.status == CUT_OFF for answer in seen.answers)
    ends = [answer.ended for answer in seen.answers if answer.ended > began and not _is_normal(answer)]
    row = FaultRow(
        name,
        answers=len(seen.answers),
        acknowledged=len(acknowledged),
        lost=len(acknowledged - written),
        wrong=len(wrong),
        server_errors=len(errors),
        unavailable=sum(answer.status == 503 for answer in seen.answers),
        cut_off=cut_off,
        degraded=sum(bool(answer.degraded) for answer in seen.answers),
        recovery_seconds=round(max([whole, *ends] if whole > cause_gone else [cause_gone, *ends]) - cause_gone, 1),
        notes={"slowest_s": round(max(answer.milliseconds for answer in seen.answers) / 1000, 1)},
    )
    if examples := [*errors, *unwanted, *wrong][:3]:
        row.notes["examples"] = [f"{each.status} {each.request[1][:80]} {each.body[:200]}" for each in examples]
    last = max((answer.ended for answer in seen.answers), default=0.0)
    row.promises = {
        "no acknowledged interaction lost": row.lost == 0,
        "no wrong answer": row.wrong == 0,
        "no 5xx but 503": row.server_errors == 0,
        "no other refusal": not unwanted,
        "recovered by itself": any(_is_normal(each) and each.ended > last - 1 for each in seen.answers)
        and not any(each > last - 1 for each in ends),
    }
    if not may_cut_off:
        row.promises["no connection cut"] = cut_off == 0
    return row


def _is_normal(answer: Answer) -> bool:
    return answer.status in (200, 201) and not answer.degraded and answer.milliseconds < SLOW_SECONDS * 1000


def _is_wrong(answer: Answer, expected: dict[tuple[str, str], tuple[str, list[Any]]]) -> bool:
    if answer.status != 200:
        return False
    rows = [(row["itemId"], row["score"]) for row in json.loads(answer.body)]
    if answer.degraded:
        return len(rows) != COUNT
    release, before = expected[answer.request]
    if answer.release != release:
        return False
    return len(rows) != len(before) or any(
        one[0] != other[0] or abs(one[1] - other[1]) > TOLERANCE for one, other in zip(rows, before, strict=True)
    )


def _rankings(
    url: str, tenant: Tenant, requests: list[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, list[Any]]]:
    """The release and the list that answer each request now."""
    found = {}
    headers = {**tenant.headers, "Content-Type": "application/json"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        for path, body in requests:
            answer = _from_a_model(client, path, body)
            rows = [(row["itemId"], row["score"]) for row in answer.json()]
            found[path, body] = answer.headers["X-Model-Release"], rows
    return found


def _from_a_model(client: httpx.Client, path: str, body: str) -> httpx.Response:
    """The answer of a model. An API that has just started may not get one within its time for a while."""
    deadline = time.monotonic() + MODEL_SECONDS
    while True:
        answer = client.post(path, content=body).raise_for_status()
        if "X-Recommendation-Degraded" not in answer.headers:
            return answer
        if time.monotonic() > deadline:
            raise RuntimeError(f"no model answers before the fault: {dict(answer.headers)}")
        time.sleep(0.2)


def _written(demo: RunningDemo, tenant: Tenant, users: list[str]) -> set[str]:
    with psycopg.connect(demo.database_url) as connection:
        query = "SELECT id::text FROM interactions WHERE tenant_id = %s AND user_id = ANY(%s)"
        return {row[0] for row in connection.execute(query, [tenant.id, users]).fetchall()}
