"""A generation through real processes: Dagster's sensor starts the job, and again after its run was killed."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.fixtures.dagster_http import DagsterClient
from tests.fixtures.platform import Platform, wait_until
from tests.fixtures.releases import publish_small, small_dataset

TENANT = "generated"
USERS = 90
COUNT = 10

_RUNS = """
{ runsOrError(filter: {pipelineName: "generate"}) { ... on Runs { results { runId status tags { key value } } } } }
"""


@dataclass
class Shop:
    platform: Platform
    http: httpx.Client
    admin: httpx.Client
    connection: psycopg.Connection[Any]

    def generate(self) -> str:
        answer = self.admin.post("/api/recommendations/generate", json={"algorithm": "hybrid", "count": COUNT})
        assert answer.status_code == 202, answer.text
        return answer.json()["jobId"]

    def status(self, job: str) -> dict[str, Any]:
        return self.admin.get(f"/api/recommendations/jobs/{job}").raise_for_status().json()

    def await_end(self, job: str, seconds: float = 300) -> dict[str, Any]:
        """The job's last status, asked for once a second: a token may ask 200 times a minute."""
        deadline = time.monotonic() + seconds
        while (found := self.status(job))["status"] == "processing":
            assert time.monotonic() < deadline, found
            time.sleep(1)
        return found

    def value(self, query: str, job: str) -> Any:
        row = self.connection.execute(query, [job]).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture(scope="module")
def shop(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    platform.start("api", "dagster")
    platform.cli("api", "create-tenant", "--id", TENANT, "--plan", "unlimited")
    key = platform.cli("api", "create-key", "--tenant", TENANT, "--name", "tests", "--rate-limit", "none")
    login = {"email": "boss@generated.example"}
    login["password"] = platform.cli("api", "create-admin", "--tenant", TENANT, "--email", login["email"])
    dataset = small_dataset()
    publish_small(platform.paths.bentoml, Path(tmp_path_factory.mktemp("models")), TENANT, catalogue_version=1)
    with (
        httpx.Client(base_url=platform.api_url, headers={"X-API-Key": key}, timeout=30) as http,
        httpx.Client(base_url=platform.api_url, timeout=30) as admin,
        psycopg.connect(platform.paths.database_url_file.read_text().strip(), autocommit=True) as connection,
    ):
        items = [
            {"id": id_, "metadata": data} for id_, data in zip(dataset.items.ids, dataset.items.metadata, strict=True)
        ]
        assert http.post("/api/items/batch", json={"items": items}).json()["failed"] == 0
        events = [
            {"userId": f"user-{number}", "itemId": dataset.items.ids[number % 60], "interactionType": "like"}
            for number in range(USERS)
        ]
        assert http.post("/api/v1/interactions/batch", json={"interactions": events}).json()["failed"] == 0
        token = admin.post("/api/auth/login", json=login).raise_for_status().json()["token"]
        admin.headers["Authorization"] = f"Bearer {token}"
        yield Shop(platform, http, admin, connection)


def test_the_sensor_takes_a_job_up_and_the_pipeline_completes_it(shop: Shop) -> None:
    job = shop.generate()
    dagster = DagsterClient(shop.platform.dagster_url)
    wait_until("a run", lambda: bool(dagster.ask(_RUNS)["runsOrError"]["results"]))
    users = USERS + 1  # the administrator is one of the tenant's users too
    assert shop.await_end(job) == {
        "jobId": job,
        "status": "completed",
        "progress": 1.0,
        "usersTotal": users,
        "usersDone": users,
        "recommendationsWritten": users * COUNT,
    }
    listed = shop.admin.get("/api/recommendations", params={"userId": "user-1", "algorithm": "hybrid"}).json()
    assert listed["total"] == COUNT


def test_a_job_whose_run_was_killed_goes_on_by_itself(shop: Shop) -> None:
    dagster = DagsterClient(shop.platform.dagster_url)
    earlier = {run["runId"] for run in dagster.ask(_RUNS)["runsOrError"]["results"]}

    def process_of_new_run() -> str | None:
        for run in dagster.ask(_RUNS)["runsOrError"]["results"]:
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            if run["runId"] not in earlier and run["status"] == "STARTED" and "recommendai/process" in tags:
                return tags["recommendai/process"]
        return None

    with psycopg.connect(shop.platform.paths.database_url_file.read_text().strip()) as holding:
        holding.execute("LOCK TABLE recommendations IN SHARE MODE")  # the run comes as far as its first write
        job = shop.generate()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'recommendations'::regclass"
        wait_until("the run to write", lambda: shop.connection.execute(waiting).fetchone() == (1,))
        process = process_of_new_run()
        assert process is not None
        os.kill(int(process.split(":")[1]), signal.SIGKILL)
    assert shop.status(job)["status"] == "processing"
    ended = shop.await_end(job)
    assert (ended["status"], ended["usersDone"]) == ("completed", ended["usersTotal"])
    distinct = "SELECT count(DISTINCT (user_id, item_id)) FROM recommendations WHERE job_id = %s"
    rows = "SELECT count(*) FROM recommendations WHERE job_id = %s"
    assert shop.value(distinct, job) == shop.value(rows, job) == ended["usersTotal"] * COUNT
