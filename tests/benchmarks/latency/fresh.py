"""Fresh histories: each recommendation follows an interaction of that user, so that no answer of before is of use.

The users are copies of real ones, which are erased afterwards, so that every run finds the same histories. What the
answers are held against: copies of some of these users, asked after a restart of model server and API. Nothing that
was kept or updated along the way can be in those answers.
"""

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg

from tests.benchmarks.latency.measure import COUNT, RECOMMEND, Round, body_of, measure_after
from tests.benchmarks.load import Load
from tests.benchmarks.running_demo import RunningDemo, Tenant, unique
from tests.fixtures.platform import answers, wait_until

INTERACTIONS = "/api/v1/interactions"
USERS = 160
SAMPLE = 20
"""Both together are fewer than an admin may erase in a minute."""
CHOICES = 20
"""Different interactions that are prepared for each user."""
ROWS = 500
"""Rows of a batch in which histories are copied."""
TOLERANCE = 1e-5
"""Of scores, which the order of floating-point operations moves."""

Event = dict[str, Any]


def histories(demo: RunningDemo, tenant: Tenant, users: Sequence[str]) -> dict[str, list[Event]]:
    """The interactions of each user as bodies of the API, without the user."""
    query = """
        SELECT user_id, item_id, interaction_type, value, occurred_at FROM interactions
        WHERE tenant_id = %s AND user_id = ANY(%s) ORDER BY occurred_at, id
    """
    found: dict[str, list[Event]] = {user: [] for user in users}
    with psycopg.connect(demo.database_url) as connection:
        for user, item, kind, value, moment in connection.execute(query, [tenant.id, list(users)]):
            weight = {} if value is None else {"value": float(value)}
            found[user].append({"itemId": item, "interactionType": kind, "timestamp": moment.isoformat(), **weight})
    return found


@contextmanager
def copies(demo: RunningDemo, tenant: Tenant, of: dict[str, list[Event]], prefix: str) -> Iterator[dict[str, str]]:
    """New users with the same histories, by the user whose history it is. They are erased at the end."""
    made = {user: f"{prefix}-{number}" for number, user in enumerate(of)}
    rows = [{"userId": made[user], **event} for user, events in of.items() for event in events]
    try:
        with httpx.Client(base_url=demo.api_url, headers=tenant.headers, timeout=120) as client:
            for start in range(0, len(rows), ROWS):
                body = {"interactions": rows[start : start + ROWS]}
                answer = client.post(f"{INTERACTIONS}/batch", json=body).raise_for_status().json()
                if answer["failed"]:
                    raise RuntimeError(f"a history was not copied: {answer}")
        yield made
    finally:
        with httpx.Client(base_url=demo.api_url, headers=demo.admin(), timeout=120) as client:
            for user in made.values():
                while (answer := client.delete(f"/api/users/{quote(user)}")).status_code == 429:
                    time.sleep(int(answer.headers["Retry-After"]))
                if answer.status_code != 404:  # it was not made yet
                    answer.raise_for_status()


def measure_fresh(
    demo: RunningDemo,
    tenant: Tenant,
    users: Sequence[str],
    items: Sequence[str],
    algorithm: str,
    clients: int,
    seconds: float,
) -> Round:
    """Each turn sends one of the user's prepared interactions, and then asks; only the second is timed."""
    draw = random.Random(0)
    place = urlsplit(demo.api_url)
    return measure_after(
        demo,
        Load(
            host=place.hostname or "",
            port=place.port or 80,
            path=RECOMMEND,
            headers=tenant.headers,
            bodies=[body_of(user, algorithm) for user in users],
            clients=clients,
            seconds=seconds,
            warm_up_seconds=1.0,
            before_path=INTERACTIONS,
            before_bodies=[
                [
                    json.dumps({"userId": user, "itemId": item, "interactionType": "click"})
                    for item in draw.sample(list(items), min(CHOICES, len(items)))
                ]
                for user in users
            ],
        ),
    )


def differing_answers(
    demo: RunningDemo, tenant: Tenant, users: Sequence[str], items: Sequence[str], algorithms: Sequence[str]
) -> list[str]:
    """Answers of the running programs that differ from those of freshly started ones, each in a sentence."""
    draw = random.Random(1)
    sample = draw.sample(list(users), min(SAMPLE, len(users)))
    with httpx.Client(base_url=demo.api_url, headers=tenant.headers, timeout=60) as client:
        running: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for user in sample:  # one more interaction each, then at once the question
            body = {"userId": user, "itemId": draw.choice(items), "interactionType": "like"}
            client.post(INTERACTIONS, json=body).raise_for_status()
            running |= {(user, algorithm): _ask(client, user, algorithm) for algorithm in algorithms}
        with copies(demo, tenant, histories(demo, tenant, sample), unique("copy")) as made:
            _restart(demo, tenant)
            return [
                f"{algorithm} of {user}: {difference}"
                for (user, algorithm), answer in running.items()
                if (difference := difference_of(answer, _ask(client, made[user], algorithm)))
            ]


def difference_of(answer: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> str:
    """What differs; empty where items, scores to `TOLERANCE`, families and evidence are the same."""
    for place, (one, other) in enumerate(zip(answer, expected, strict=False)):
        for name in ("itemId", "algorithm", "evidence"):
            if one[name] != other[name]:
                return f"{name} at place {place} is {one[name]!r}, not {other[name]!r}"
        if abs(one["score"] - other["score"]) > TOLERANCE:
            return f"the score at place {place} is {one['score']}, not {other['score']}"
    return "" if len(answer) == len(expected) else f"{len(answer)} items, not {len(expected)}"


def _ask(client: httpx.Client, user: str, algorithm: str) -> list[dict[str, Any]]:
    body = {"userId": user, "count": COUNT, "algorithm": algorithm}
    answer = client.post(RECOMMEND, json=body).raise_for_status()
    if reason := answer.headers.get("X-Recommendation-Degraded"):
        raise RuntimeError(f"a degraded answer: {reason}")
    return list(answer.json())


def _restart(demo: RunningDemo, tenant: Tenant) -> None:
    for program in ("serving", "api"):
        demo.control("restart", program)
    wait_until("the API", lambda: answers(f"{demo.api_url}/health/ready"))
    wait_until("the model server", lambda: answers(f"{demo.serving_url}/readyz"))
    wait_until("the release", lambda: tenant.id in demo.releases())

    def from_a_model() -> bool:
        body = {"userId": "nobody", "count": 1}
        answer = httpx.post(demo.api_url + RECOMMEND, json=body, headers=tenant.headers, timeout=60)
        return answer.is_success and "X-Recommendation-Degraded" not in answer.headers

    wait_until("an answer of a model", from_a_model)
