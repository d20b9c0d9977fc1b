"""Dagster's programs one by one, as the units and containers of `configs/deploy` run them."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from configs.health_check import is_healthy
from configs.settings import PathSettings
from pipelines.dagster_programs import LongSocketError, code_socket
from pipelines.instance import open_instance
from pipelines.partitions import TENANTS
from tests.fixtures.platform import ROOT, answers, free_ports, wait_until
from tests.pipelines.conftest import TENANT

PASSWORD = "a password of operators"


@contextmanager
def program(name: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m pipelines NAME`, ended by SIGTERM to its group, as systemd and Docker end it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", name],
            cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_each_program_runs_alone_and_the_console_is_guarded(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "RECOMMENDAI_STATE_DIR": str(tmp_path),
        "DAGSTER_PORT": str(port),
        "OPERATOR_PASSWORD": PASSWORD,
        "PIPELINE_AUTOMATION": "true",
    }
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    address, url = code_socket(PathSettings(state_dir=tmp_path)), f"http://127.0.0.1:{port}"
    login = ("operator", PASSWORD)
    with ExitStack() as stack:
        # The others wait for the first, in whatever order a supervisor starts them.
        for name in ("web", "daemon", "code"):
            stack.enter_context(program(name, environment, tmp_path / f"{name}.log"))
        wait_until("the console", lambda: is_healthy(f"{url}/server_info"))
        assert stat.S_IMODE(address.stat().st_mode) & 0o077 == 0
        assert httpx.get(f"{url}/server_info").status_code == 401
        assert httpx.get(f"{url}/server_info", auth=login, timeout=60).json()["dagster_version"]
        foreign = {"Origin": "https://elsewhere.example"}
        asked = {"query": "{ version }"}
        assert httpx.post(f"{url}/graphql", json=asked, headers=foreign, auth=login).status_code == 403
        assert 'recommendai_runs{job="retrain"' in httpx.get(f"{url}/metrics", auth=login, timeout=60).text
        check = [sys.executable, "-m", "pipelines", "check"]
        assert subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, check=False).returncode == 0

        def partitions() -> list[str]:
            with open_instance(PathSettings(state_dir=tmp_path)) as instance:
                return instance.get_dynamic_partitions(TENANTS)

        wait_until("the tenant's partition, which the daemon's sensor adds", lambda: partitions() == [TENANT])
    assert not answers(f"{url}/server_info")


def test_a_state_folder_whose_path_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LongSocketError, match="RECOMMENDAI_STATE_DIR"):
        code_socket(PathSettings(state_dir=tmp_path / ("d" * 120)))
