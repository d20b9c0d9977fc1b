"""`python -m tests.benchmarks.many_tenants [TENANTS]`: what sensors, schedules and Dagster's pages cost.

Makes a database with so many tenants, each with a catalogue and 50 interactions, and a Dagster instance in which each
has a partition, a run of the whole job, and materialisations of some assets. Then it measures

- one tick of every sensor and schedule, called as the daemon calls them (nothing that they ask for is started),
- what the UI asks GraphQL for on its pages, answered by the web server that `python -m pipelines ui` runs.

Prints seconds and bytes as JSON.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import dagster as dg
import httpx
import psycopg
from dagster._core.definitions.partitions.context import partition_loading_context
from pydantic import SecretStr
from rich.console import Console

from api.database.migrate import upgrade
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from pipelines.definitions import build_definitions
from pipelines.instance import open_instance
from pipelines.jobs import RETRAIN, WORK_TAG
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.resources import Installation
from tests.fixtures.dagster_http import DagsterClient
from tests.fixtures.platform import ROOT, answers, free_ports, wait_until
from tests.fixtures.postgres import running_postgres

ASSETS = ("feature_snapshot", "release")
"""Those with a materialisation of every partition."""
ASKED = 5
console = Console(stderr=True)

_ASSET = '{path: ["feature_snapshot"]}'
_STATUSES = """
assetPartitionStatuses { __typename ... on DefaultPartitionStatuses {
  materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } }
partitionStats { numMaterialized numMaterializing numPartitions numFailed }"""
PAGES = {
    "assets (catalogue)": "{ assetNodes { assetKey { path } groupName kinds description owners { __typename } } }",
    "assets (states)": "{ assetsLatestInfo(assetKeys: [KEYS]) "
    "{ assetKey { path } latestMaterialization { timestamp } unstartedRunIds inProgressRunIds latestRun { id } } }",
    "partitions of an asset": "{ assetNodeOrError(assetKey: ASSET) { ... on AssetNode { "
    "partitionKeysByDimension { name type partitionKeys } STATUSES } } }",
    "partitions of all assets": "{ assetNodes(assetKeys: [KEYS]) { assetKey { path } "
    "partitionStats { numMaterialized numMaterializing numPartitions numFailed } } }",
    "one partition": "{ assetNodeOrError(assetKey: ASSET) { ... on AssetNode { latestMaterializationByPartition("
    'partitions: ["tenant-0007"]) { timestamp runId metadataEntries { label } } } } }',
    "runs": "{ runsOrError(limit: 25) { ... on Runs { results { id jobName status tags { key value } } } } "
    "runsCount: runsOrError { ... on Runs { count } } }",
    "runs of a tenant": '{ runsOrError(limit: 25, filter: {tags: [{key: "dagster/partition", value: "tenant-0007"}]}) '
    "{ ... on Runs { results { id jobName status } } } }",
}


def fill(url: str, tenants: list[str]) -> None:
    """Each tenant with 20 items, 10 users and 50 interactions."""
    with psycopg.connect(url, autocommit=True) as connection:
        wanted = "unnest(%(tenants)s::text[]) AS tenant"
        for statement in (
            f"INSERT INTO tenants (id, plan) SELECT tenant, 'unlimited' FROM {wanted}",
            f"INSERT INTO catalogues (tenant_id) SELECT tenant FROM {wanted}",
            "INSERT INTO items (tenant_id, id, metadata, version) SELECT tenant, 'item-' || n, '{}', 1 "
            f"FROM {wanted}, generate_series(1, 20) AS n",
            f"INSERT INTO users (tenant_id, id) SELECT tenant, 'user-' || n FROM {wanted}, generate_series(1, 10) AS n",
            "INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, occurred_at) "
            "SELECT tenant, gen_random_uuid(), 'user-' || (n %% 10 + 1), 'item-' || (n %% 20 + 1), 'click', "
            f"now() - n * interval '1 hour' FROM {wanted}, generate_series(1, 50) AS n",
        ):
            connection.execute(statement, {"tenants": tenants})
        connection.execute("VACUUM (ANALYZE)")


def add_history(instance: dg.DagsterInstance, tenants: list[str]) -> None:
    """A run of the whole job of each tenant as it ends, and what some assets report of it.

    The events belong to no run: Dagster keeps the log of each run in a file of its own, whose making takes a second.
    """
    metadata = {"summary": dg.MetadataValue.text("12,345 interactions of 678 users"), "interactions": 12_345}
    for number, tenant in enumerate(tenants):
        if number % 500 == 0:
            console.print(f"history of {number} tenants")
        status = dg.DagsterRunStatus.FAILURE if tenant.endswith("7") else dg.DagsterRunStatus.SUCCESS
        tags = {TENANT_TAG: tenant, WORK_TAG: "training"}
        instance.add_run(dg.DagsterRun(job_name=RETRAIN, run_id=str(uuid4()), tags=tags, status=status))
        for name in ASSETS:
            instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=tenant, metadata=metadata))


def ticks(installation: Installation, instance: dg.DagsterInstance) -> dict[str, dict[str, Any]]:
    """Seconds of one tick of each sensor and schedule."""
    definitions = build_definitions(installation)
    found: dict[str, dict[str, Any]] = {}
    for sensor in definitions.sensors or ():
        if isinstance(sensor, dg.RunStatusSensorDefinition):
            continue  # the daemon reads the events for it
        context: Any = dg.build_sensor_context(
            instance=instance, resources={"installation": installation}, definitions=definitions
        )
        found[sensor.name] = _timed(lambda each=sensor, with_=context: each.evaluate_tick(with_), instance)
    for schedule in definitions.schedules or ():
        at: Any = dg.build_schedule_context(
            instance=instance,
            resources={"installation": installation},
            scheduled_execution_time=datetime.now(UTC),
        )
        found[schedule.name] = _timed(lambda each=schedule, with_=at: each.evaluate_tick(with_), instance)
    return found


def _timed(tick: Any, instance: dg.DagsterInstance) -> dict[str, Any]:
    began, used = time.perf_counter(), time.process_time()
    with partition_loading_context(dynamic_partitions_store=instance):  # as the daemon does around a tick
        result = tick()
    found = {
        "seconds": round(time.perf_counter() - began, 2),
        "processor": round(time.process_time() - used, 2),
        "requests": len(result.run_requests or ()),
    }
    return found


@contextmanager
def ui(url: str, state: Path) -> Iterator[str]:
    """Dagster's pages without sensors that run."""
    (port,) = free_ports(1)
    environment = {"DATABASE_URL": url, "RECOMMENDAI_STATE_DIR": str(state), "DAGSTER_PORT": str(port)}
    with (state / "ui.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "ui"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until("the UI", lambda: answers(f"{address}/server_info"))
        yield address
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def pages(address: str) -> dict[str, dict[str, Any]]:
    """The first answer to each page's query and the median of the next ones, in seconds."""
    client = DagsterClient(address)
    nodes = client.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]
    keys = ", ".join(f"{{path: {json.dumps(node['assetKey']['path'])}}}" for node in nodes)
    found = {}
    with httpx.Client(base_url=address, timeout=300) as http:
        for name, query in PAGES.items():
            text = query.replace("KEYS", keys).replace("ASSET", _ASSET).replace("STATUSES", _STATUSES)
            client.ask(text)  # its errors
            seconds = []
            for _ in range(ASKED):
                began = time.perf_counter()
                answer = http.post("/graphql", json={"query": text}).raise_for_status()
                seconds.append(time.perf_counter() - began)
            found[name] = {"seconds": round(sorted(seconds)[ASKED // 2], 3), "bytes": len(answer.content)}
            console.print({name: found[name]})
    return found


def main(count: int) -> None:
    tenants = [f"tenant-{number:04}" for number in range(count)]
    with TemporaryDirectory() as folder, running_postgres() as url:
        state = Path(folder)
        upgrade(url)
        fill(url, tenants)
        installation = Installation(paths=PathSettings(state_dir=state), database=DatabaseSettings(url=SecretStr(url)))
        os.environ["DAGSTER_HOME"] = str(installation.paths.dagster)
        with open_instance(installation.paths) as instance:
            found: dict[str, Any] = {"tenants": count}
            began = time.perf_counter()
            instance.add_dynamic_partitions(TENANTS, tenants)
            found["add partitions"] = round(time.perf_counter() - began, 2)
            began = time.perf_counter()
            add_history(instance, tenants)
            console.print(f"history: {time.perf_counter() - began:.0f} s")
            found["ticks"] = ticks(installation, instance)
        found["MB of Dagster"] = round(sum(f.stat().st_size for f in installation.paths.dagster.rglob("*")) / 1e6)
        with ui(url, state) as address:
            found["pages"] = pages(address)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 2_000)
