"""What `schemathesis run` loads.

It notes how valid cases are answered, and does for them what a schema cannot say: it logs in with real credentials,
with a session of its own where a session ends, and keeps the run's own credentials alive.
"""

import json
import os
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import schemathesis

from tests.fuzz.arguments import within_bounds
from tests.fuzz.semantics import MISUNDERSTOOD

NOTES = Path(os.environ["FUZZ_NOTES"])
RUN = json.loads(os.environ["FUZZ_RUN"])  # url, token, email, password; spared: ids by parameter; seeds: the same
NUMBERS = count()
LOGINS = ("POST /api/auth/login", "POST /auth/v1/token")
GRAPHQL = ("Query.", "Mutation.")
UNBOUNDED: set[str] = set()
"""Ids of GraphQL's cases whose arguments were left as they were generated."""
LOGOUT = "POST /auth/v1/logout"
OWN_CHANGES = "PUT /auth/v1/user"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Make the case one that a client could send."""
    for name, spared in RUN["spared"].items():
        if (case.path_parameters or {}).get(name) in spared:
            case.path_parameters[name] = RUN["seeds"][name][0]
    headers = case.headers or {}
    label = case.operation.label
    is_own = headers.get("Authorization") == f"Bearer {RUN['token']}"
    if label == LOGOUT and is_own:
        headers["Authorization"] = _token("/api/auth/login", {"email": RUN["email"]})
    if not (case.meta and case.meta.generation.mode.is_positive):
        return
    if label.startswith(GRAPHQL):
        if next(NUMBERS) % 2:
            case.body = within_bounds(case.body, RUN["seeds"])
        else:
            UNBOUNDED.add(case.id)
        return
    if key := headers.get("Idempotency-Key"):  # nobody uses one for two requests
        headers["Idempotency-Key"] = f"{key[:200]}-{next(NUMBERS)}"
    if label in LOGINS and isinstance(case.body, dict) and {"email", "password"} <= case.body.keys():
        case.body |= {"email": RUN["email"], "password": RUN["password"]}
    if label == OWN_CHANGES and is_own and isinstance(case.body, dict):
        email = f"own-{next(NUMBERS)}@fuzz.example"
        headers["Authorization"] = _token("/auth/v1/signup", {"email": email})
        case.body["current_password"] = RUN["password"]


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Pass over what is listed as no failure, and over arguments past bounds that GraphQL's types do not know."""
    if case.id in UNBOUNDED and type(failure).__name__ == "GraphQLClientError":
        return bool(_status(response) not in (400, 404))
    return (case.operation.path, type(failure).__name__) not in MISUNDERSTOOD


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """A line for each case: operation, whether it was valid, status, and why it was refused."""
    valid = bool(case.meta and case.meta.generation.mode.is_positive) and case.id not in UNBOUNDED
    status = _status(response) if case.operation.label.startswith(GRAPHQL) else response.status_code
    note = {"operation": case.operation.label, "valid": valid, "status": status, "detail": ""}
    if response.status_code >= 400:
        note["detail"] = response.json().get("detail", "")
    with NOTES.open("a") as notes:
        notes.write(json.dumps(note) + "\n")


def _status(response: Any) -> int:
    """The first that a field of GraphQL failed with, or the answer's own."""
    errors = response.json().get("errors", [])
    return int(errors[0]["extensions"]["status"]) if errors else int(response.status_code)


def _token(path: str, body: dict[str, str]) -> str:
    answer = httpx.post(RUN["url"] + path, json={**body, "password": RUN["password"]}, timeout=30).json()
    return f"Bearer {answer.get('token') or answer['access_token']}"
