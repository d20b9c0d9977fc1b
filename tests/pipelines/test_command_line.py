"""`python -m pipelines` as a person or a script calls it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psycopg
import pytest

from configs.settings import PathSettings
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


@pytest.mark.parametrize("arguments", [("run", "--tenant", "nobody"), ("add-tenant", "nobody")])
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
    assert not [entry for entry in Path("/proc").glob("[0-9]*") if _belongs_to(entry, ui.pid)]


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
