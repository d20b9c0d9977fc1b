"""`schemathesis run` with all checks against a live server, and what it makes of the answers.

Credentials have no limits and ids are seeded, so that what is generated mostly reaches the routes' own code.
"""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psycopg

from api.app import create_app
from configs.api import LimitSettings
from tests.api.conftest import Tenants, configuration_of
from tests.fixtures.live import served
from tests.fixtures.people import PASSWORD
from tests.fixtures.platform import ROOT
from tests.fixtures.standin import running_standin
from tests.fixtures.twins import Twin, make_twin
from tests.fuzz.semantics import SEMANTIC, VALID_SHARE

OPENAPI, GRAPHQL = "/openapi.json", "/graphql"
SEEDED = 0.9
"""Chance that a parameter of a path is an id that exists."""
SPARE_ITEMS = 200
UNLIMITED = LimitSettings(per_key=2**31 - 1, per_jwt=10**9, per_ip=10**9, redis_url=None)


@dataclass(frozen=True)
class Target:
    """A live API, and a tenant in it."""

    url: str
    twin: Twin
    seeds: dict[str, list[str]]  # by parameter
    key_id: str  # of the key that calls

    @property
    def token(self) -> str:
        """The admin's who calls."""
        return self.twin.credentials["admin"]["Authorization"].removeprefix("Bearer ")


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    code: int
    output: str
    answers: dict[str, Counter[int]]  # of valid cases, by operation
    details: dict[str, Counter[str]]  # of refusals of valid cases

    def problems(self) -> list[str]:
        """One sentence per promise that does not hold."""
        found = [] if self.code == 0 else [f"schemathesis found something:\n{self.output}"]
        for operation, statuses in sorted(self.answers.items()):
            if statuses[429]:
                found.append(f"{operation}: a 429 without a limit")
            allowed = SEMANTIC.get(operation, ((), ""))[0]
            total = sum(count for status, count in statuses.items() if status not in allowed)
            fine = sum(count for status, count in statuses.items() if status < 300 or status == 404)
            if total and fine / total < VALID_SHARE:
                found.append(f"{operation}: of {total} valid cases only {fine} are 2xx or 404: {dict(statuses)}")
        return found


@contextmanager
def target(database_url: str, state: Path) -> Iterator[Target]:
    """The API over a migrated database, with a seeded tenant."""
    configuration = configuration_of(database_url, state)
    auth = configuration.auth.model_copy(update={"registration_tenant": "strangers"})
    with (
        running_standin(state) as account,
        served(create_app(replace(configuration, limits=UNLIMITED, auth=auth, billing=account.settings()))) as url,
    ):
        tenants = Tenants(database_url)
        tenants.create("strangers")
        with httpx.Client(base_url=url, timeout=60) as client:
            twin = make_twin(client, database_url, tenants, "acme", "beta")
            keys = client.get("/api/keys", headers=twin.credentials["admin"]).json()["data"]
            (own,) = (key["id"] for key in keys if key["name"] == "test")
            yield Target(url, twin, _seed(client, database_url, twin), own)


def run(target: Target, work: Path, *options: str, location: str = OPENAPI) -> Outcome:
    """Run it with these further options on the API that is described there. work: an empty folder."""
    config, notes = work / "schemathesis.toml", work / "notes.jsonl"
    config.write_text(_configuration(target))
    notes.touch()
    described = {
        "url": target.url,
        "token": target.token,
        "email": f"member@{target.twin.word}.example",
        "password": PASSWORD,
        "spared": {"user_id": ["boss", "member"], "key_id": [target.key_id]},
        "seeds": target.seeds,
    }
    if location == GRAPHQL:
        options = (*options, "--header", f"X-API-Key:{target.twin.credentials['key']['X-API-Key']}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color"),
            *("run", target.url + location, "--checks", "all", *options),
        ],
        cwd=work,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
            "FUZZ_NOTES": str(notes),
            "FUZZ_RUN": json.dumps(described),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    answers: dict[str, Counter[int]] = defaultdict(Counter)
    details: dict[str, Counter[str]] = defaultdict(Counter)
    for line in notes.read_text().splitlines():
        note = json.loads(line)
        if note["valid"]:
            answers[note["operation"]][note["status"]] += 1
            if note["status"] >= 400 and note["status"] != 404:
                detail = json.loads(note["detail"] if note["detail"].endswith("}") else "{}").get(
                    "detail", note["detail"]
                )
                details[note["operation"]][f"{note['status']} {detail[:120]}"] += 1
    return Outcome(done.returncode, done.stdout + done.stderr, answers, details)


def _seed(client: httpx.Client, database_url: str, twin: Twin) -> dict[str, list[str]]:
    items = [f"spare-{number}" for number in range(SPARE_ITEMS)]
    rows = [{"id": id_, "metadata": {"title": f"Spare {id_}"}} for id_ in items]
    answer = client.post("/api/items/batch", json={"items": rows}, headers=twin.credentials["key"])
    assert answer.json()["failed"] == 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO users (tenant_id, id, name) "
            "SELECT %s, 'spare-' || n, 'Spare' FROM generate_series(1, 100) AS n",
            [twin.tenant_id],
        )
        connection.execute(
            "INSERT INTO recommendations (tenant_id, user_id, item_id, rank, score, algorithm, reason) "
            "SELECT %s, 'spare-' || n, 'spare-' || n, 1, 0.5, 'hybrid', 'spare' FROM generate_series(1, 100) AS n",
            [twin.tenant_id],
        )
        records = connection.execute("SELECT id::text FROM recommendations WHERE reason = 'spare'").fetchall()
    return {
        "item_id": [*items, twin.ids["item_id"]],
        "user_id": [*(f"spare-{number}" for number in range(1, 101)), twin.ids["user_id"]],
        "recommendation_id": [id_ for (id_,) in records],
        "job_id": [twin.ids["job_id"]],
        "key_id": [twin.ids["key_id"], twin.own_ids["key_id"]],
    }


def _configuration(target: Target) -> str:
    """`schemathesis.toml`. JSON's strings and arrays of strings are TOML's too."""
    credentials = target.twin.credentials
    lines = [
        "[auth.openapi]",
        f"ApiKey = {{ api_key = {json.dumps(credentials['key']['X-API-Key'])} }}",
        f"Token = {{ bearer = {json.dumps(target.token)} }}",
        *(f"[dictionaries.{name}]\nvalues = {json.dumps(values)}" for name, values in target.seeds.items()),
        "[parameters]",
        *(f'"path.{name}" = {{ dictionary = "{name}", probability = {SEEDED} }}' for name in target.seeds),
    ]
    for operation, (statuses, _) in SEMANTIC.items():
        expected = json.dumps(["2xx", "404", *map(str, statuses)])
        lines += [
            "[[operations]]",
            f"include-name = {json.dumps(operation)}",
            f"checks.positive_data_acceptance.expected-statuses = {expected}",
        ]
    return "\n".join(lines) + "\n"


def report(outcome: Outcome) -> str:
    """How valid cases were answered, a line per operation, with the reasons of refusals below."""
    lines = []
    for operation, statuses in sorted(outcome.answers.items()):
        lines.append(f"{operation}: {dict(sorted(statuses.items()))}")
        lines += [f"    {count} x {detail}" for detail, count in outcome.details[operation].most_common(5)]
    return "\n".join(lines)
