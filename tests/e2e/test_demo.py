"""`make demo` from an empty folder to answers, a second call, and an end that leaves no process."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fixtures.platform import ROOT, answers, free_ports, wait_until

pytestmark = pytest.mark.service

PROGRAMS = ("API", "SERVING", "DAGSTER", "MLFLOW", "STRIPE")
SECRETS = ("STRIPE_", "JWT_SECRET", "DATABASE_URL")
"""What of this process's environment is not the newcomer's."""


def environment_of(state: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SECRETS)}
    ports = {f"{name}_PORT": str(port) for name, port in zip(PROGRAMS, free_ports(len(PROGRAMS)), strict=True)}
    return {**kept, **ports, "RECOMMENDAI_STATE_DIR": str(state), "DEMO_TRAIN_SECONDS": "5", "DEMO_SEARCH_MINUTES": "0"}


@contextmanager
def demo(environment: dict[str, str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("w") as file:
        command = [sys.executable, "-m", "configs.local.demo"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=180)


def reset(state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "reset", f"STATE={state}"], cwd=ROOT, capture_output=True, text=True, check=False)


def processes_of(state: Path) -> list[str]:
    """Command lines of the processes that work for this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECOMMENDAI_STATE_DIR") == str(state) or str(state) in process.cmdline():
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def test_from_an_empty_folder_to_answers_and_back(tmp_path: Path) -> None:
    state, output = tmp_path / "state", tmp_path / "output"
    environment = environment_of(state)
    with demo(environment, output) as process:

        def announced() -> bool:
            assert process.poll() is None, output.read_text()
            return "Ctrl-C stops everything" in output.read_text()

        wait_until("the demo", announced, 1_800)
        file = state / "demo.env"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        told = dict(line.split("=", 1) for line in file.read_text().splitlines())
        urls = {f"{name}_URL" for name in ("API", "SERVING", "DAGSTER", "MLFLOW")}
        assert told.keys() >= {*urls, "API_KEY", "ADMIN_EMAIL", "ADMIN_PASSWORD", "TENANT_ID"}
        assert told["API_URL"] == f"http://127.0.0.1:{environment['API_PORT']}"
        shown = output.read_text()
        for name in (*urls, "API_KEY", "ADMIN_EMAIL", "ADMIN_PASSWORD"):
            assert told[name] in shown
        assert all(map(answers, (f"{told['API_URL']}/health/ready", f"{told['DAGSTER_URL']}/server_info")))
        assert all(map(answers, (f"{told['SERVING_URL']}/readyz", f"{told['MLFLOW_URL']}/health")))

        with httpx.Client(base_url=told["API_URL"], timeout=30) as client:
            asked = {"userId": "196", "count": 5, "algorithm": "hybrid"}
            answer = client.post("/api/v1/recommend", json=asked, headers={"X-API-Key": told["API_KEY"]})
            assert len(answer.raise_for_status().json()) == 5
            assert "X-Recommendation-Degraded" not in answer.headers
            asked["scenario"] = "front-page"
            answer = client.post("/api/v1/recommend", json=asked, headers={"X-API-Key": told["API_KEY"]})
            assert answer.headers["X-Scenario"] == "front-page@1"
            login = {"email": told["ADMIN_EMAIL"], "password": told["ADMIN_PASSWORD"]}
            assert client.post("/api/auth/login", json=login).status_code == 200

        again = tmp_path / "again"
        with demo(environment, again) as second:
            assert second.wait(timeout=600) == 0
        assert "It runs in another terminal" in again.read_text()
        assert again.read_text().count("kept") == 2  # the data and what was trained of it
        assert dict(line.split("=", 1) for line in file.read_text().splitlines()) == told
        assert reset(state).returncode != 0
        assert file.exists()
    assert process.returncode == 130
    wait_until("the end of every process", lambda: not processes_of(state))
    assert reset(state).returncode == 0
    assert not state.exists()
