"""`python -m pipelines` as a person or a script calls it."""

import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psycopg
import pytest
from rich.console import Console
from typer.testing import CliRunner

from configs.settings import PathSettings
from feature_store.exports import export_interactions, export_items
from feature_store.lake import TenantLake
from feature_store.snapshots import build_snapshot
from pipelines.__main__ import app
from pipelines.backfill_day import BACKFILL_TAG
from pipelines.instance import open_instance
from pipelines.partitions import TENANTS
from tests.feature_store.rows import add_interactions, add_items
from tests.fixtures.dagster_http import DagsterClient
from tests.fixtures.platform import answers, free_ports, wait_until
from tests.pipelines.conftest import TENANT

ROOT = Path(__file__).resolve().parents[2]


def command(url: str, state: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url, "RECOMMENDAI_STATE_DIR": str(state), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_failing_run_says_which_step_and_why_and_shows_in_the_instance(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_items(connection, TENANT, {"i1": {}})
    add_interactions(connection, TENANT, [("ann", "i1")] * 3)
    result = command(database_url, tmp_path, "run", "--tenant", TENANT, FIRST_MODEL_AFTER_INTERACTIONS="8")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert any(line.startswith("done") and "3 new interactions, 3 in the lake" in line for line in lines)
    assert "lake_interactions: volume: 3 interactions, 5 more until the first model" in lines
    assert result.stdout == ""
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    with open_instance(PathSettings(state_dir=tmp_path)) as instance:
        assert instance.get_dynamic_partitions(TENANTS) == [TENANT]
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert run.tags["dagster/partition"] == TENANT
        assert run.run_id in result.stderr


def test_adding_a_tenant_twice_is_no_error(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    assert command(database_url, tmp_path, "add-tenant", TENANT).returncode == 0
    assert command(database_url, tmp_path, "add-tenant", TENANT).returncode == 0


def test_a_backfill_makes_the_lake_whole_and_its_features_anew_and_says_so(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    add_items(connection, TENANT, {"i1": {}})
    for day in (1, 2):
        arrived = datetime(2026, 3, day, tzinfo=UTC)
        add_interactions(connection, TENANT, [("ann", "i1")] * 6, at=arrived, arrived=arrived)
    lake = TenantLake(PathSettings(state_dir=tmp_path).lake, TENANT)
    export_interactions(database_url, lake.root, TENANT)
    export_items(database_url, lake.root, TENANT)
    whole = build_snapshot(lake.root, tmp_path / "whole", TENANT)
    lake.interaction_files()[1].unlink()
    arguments = ("backfill", "--tenant", TENANT, "--from", "2026-03-02")
    result = command(database_url, tmp_path, *arguments, FIRST_MODEL_AFTER_INTERACTIONS="10")
    assert result.returncode == 0, result.stderr
    assert "from 2026-03-02 on: 6 missing interactions of 1 days written; 0 new interactions" in result.stderr
    assert lake.rows_in_files() == 12
    with open_instance(PathSettings(state_dir=tmp_path)) as instance:
        (run,) = instance.get_runs()
        assert (run.job_name, run.tags[BACKFILL_TAG]) == ("backfill", "2026-03-02")
        done = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
        made = [each.asset_materialization for each in done if each.asset_materialization is not None]
        (snapshot,) = [each for each in made if each.asset_key.path == ["feature_snapshot"]]
        assert snapshot.metadata["snapshot_id"].value == whole.snapshot_id
        assert {each.asset_key.path[0] for each in made} >= {"drift", "item_lists", "daily_accuracy"}


@pytest.mark.parametrize(
    ("day", "words"),
    [("yesterday", "'yesterday' is no day: give one such as"), ("2999-01-01", "2999-01-01 is in the future: today is")],
)
def test_a_backfill_from_no_day_or_a_future_one_is_refused(
    day: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = StringIO()
    monkeypatch.setattr("pipelines.__main__.console", Console(file=shown))
    assert CliRunner().invoke(app, ["backfill", "--tenant", TENANT, "--from", day]).exit_code == 1
    assert words in shown.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--tenant", "nobody"),
        ("add-tenant", "nobody"),
        ("backfill", "--tenant", "nobody", "--from", "2026-03-01"),
    ],
)
def test_an_unknown_tenant_is_refused_with_advice(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = command(database_url, tmp_path, *arguments)
    assert result.returncode == 1
    assert "create-tenant --id nobody" in result.stderr


@pytest.mark.service
def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = command("postgresql://nowhere", tmp_path, "ui", DAGSTER_PORT=port)
    assert result.returncode == 1
    assert f"port {port} is not free" in result.stderr


def test_the_ui_runs_the_sensors_and_ends_when_told_to(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    environment = {
        "DATABASE_URL": database_url,
        "RECOMMENDAI_STATE_DIR": str(tmp_path),
        "DAGSTER_PORT": str(port),
        "PIPELINE_AUTOMATION": "true",
    }
    with (tmp_path / "ui.log").open("w") as log:
        ui = subprocess.Popen(
            ["sh", "-c", "trap '' INT; exec \"$0\" -m pipelines ui", sys.executable],  # as a shell's `&` does
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until("the UI", lambda: answers(f"{url}/server_info"))
        dagster = DagsterClient(url)
        query = "{ assetNodes { partitionKeysByDimension { partitionKeys } } }"

        def partitions() -> set[str]:
            nodes = dagster.ask(query)["assetNodes"]
            return {key for node in nodes for each in node["partitionKeysByDimension"] for key in each["partitionKeys"]}

        wait_until("the tenant's partition", lambda: partitions() == {TENANT})
        stop = {"query": 'mutation { stopRunningSchedule(id: "x") { __typename } }'}
        assert httpx.get(f"{url}/graphql", params=stop).status_code == 405
        foreign = {"Origin": "https://elsewhere.example"}
        assert httpx.post(f"{url}/graphql", json=stop, headers=foreign).status_code == 403
        assert httpx.get(url, headers={"Host": "elsewhere.example"}).status_code == 421
        metrics = httpx.get(f"{url}/metrics", timeout=60).raise_for_status().text
        assert f'recommendai_tenant_waiting_interactions{{tenant="{TENANT}"}}' in metrics
        assert 'recommendai_runs{job="retrain",status="failure"} 0.0' in metrics
        ui.terminate()
        ui.wait(timeout=60)
    finally:
        if ui.poll() is None:
            os.killpg(ui.pid, signal.SIGKILL)
            ui.wait()
    assert ui.returncode == 0
    # A process of it that was killed may take a moment to be gone.
    wait_until("its last process", lambda: not any(_belongs_to(each, ui.pid) for each in Path("/proc").glob("[0-9]*")))


def _belongs_to(entry: Path, session: int) -> bool:
    """Whether the process of this entry of /proc is of the session."""
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == session
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.service
def test_the_ui_listens_beyond_loopback_only_with_a_password(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    result = command("postgresql://nowhere", tmp_path, "ui", DAGSTER_PORT=str(port), DAGSTER_HOST="0.0.0.0")
    assert result.returncode == 1
    assert "set OPERATOR_PASSWORD" in result.stderr
