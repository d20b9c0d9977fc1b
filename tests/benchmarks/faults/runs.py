"""Dagster is restarted while a run works: the run goes on by itself in another one, and the next one succeeds."""

import time
from typing import Any

from pipelines.jobs import LAKE, RETRAIN
from tests.benchmarks.faults.load import FaultRow, under_load
from tests.benchmarks.faults.tenants import release_is_right, small_tenant
from tests.benchmarks.running_demo import RunningDemo, Tenant
from tests.fixtures.dagster_http import DagsterClient
from tests.fixtures.platform import answers, wait_until

START_SECONDS, RUN_SECONDS, RETRY_SECONDS = 300, 1_200, 60
STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
RUNS = "{ runsOrError(limit: 5) { ... on Runs { results { runId parentRunId status } } } }"


def restart_in_run(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """The supervisor restarts Dagster in the middle of a small tenant's training."""
    seen: dict[str, Any] = {}
    own = small_tenant(demo)
    demo.cli("pipelines", "add-tenant", own.id)

    def trouble() -> float:
        client = DagsterClient(demo.values["DAGSTER_URL"])
        run = client.launch(RETRAIN, own.id)
        wait_until("the run", lambda: _status(client, run) == "STARTED", START_SECONDS)
        began = time.monotonic()
        demo.control("restart", "dagster")
        wait_until("Dagster", lambda: answers(f"{demo.values['DAGSTER_URL']}/server_info"), START_SECONDS)
        client = DagsterClient(demo.values["DAGSTER_URL"])
        seen["status"] = client.wait(run, RUN_SECONDS)
        deadline = time.monotonic() + RETRY_SECONDS
        while time.monotonic() < deadline and "retry" not in seen:
            found = client.ask(RUNS)["runsOrError"]["results"]
            if retries := [each["runId"] for each in found if each["parentRunId"] == run]:
                seen["retry"] = retries[0]
            time.sleep(1)
        if "retry" in seen:
            seen["retry_status"] = client.wait(seen["retry"], RUN_SECONDS)
        seen["next"] = client.wait(client.launch(LAKE, own.id), RUN_SECONDS)
        return began

    row = under_load("Dagster restarted in mid-run", demo, tenant, trouble)
    row.notes |= seen
    row.promises |= {
        "the run is not left as running": seen["status"] in {"SUCCESS", "FAILURE", "CANCELED"},
        "the run went on by itself": "SUCCESS" in (seen["status"], seen.get("retry_status")),
        **release_is_right(demo, own),
        "the next run succeeds": seen["next"] == "SUCCESS",
    }
    return [row]


def _status(client: DagsterClient, run: str) -> str:
    return str(client.ask(STATUS, id=run)["runOrError"]["status"])
