"""MLflow's server as the installation runs it: its own pages, its own names, and a login where a password is set."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient

from configs.console_guard import ConsoleSettings
from tests.fixtures.mlflow_store import mlflow_store
from tests.fixtures.platform import ROOT, answers, free_ports, wait_until
from training.tracking.server import MLFLOWS_OWN, UnguardedError, guarded_command

PASSWORD = "a long enough password"
OPERATOR = ("operator", PASSWORD)
SEARCH = "/api/2.0/mlflow/experiments/search"


@contextmanager
def tracking_server(folder: Path, host: str = "127.0.0.1", **environment: str) -> Iterator[str]:
    """MLflow over a store of its own. Yields its URL."""
    (port,) = free_ports(1)
    store, artifacts = mlflow_store(folder), str(folder / "artifacts")
    arguments = ("--workers", "1", "--host", host, "--port", str(port), "--backend-store-uri", store)
    process = subprocess.Popen(
        [sys.executable, "-m", "training.tracking.server", *arguments, "--artifacts-destination", artifacts],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until("MLflow", lambda: process.poll() is not None or answers(f"{url}/health"))
        assert process.poll() is None
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a login."""
    with tracking_server(tmp_path_factory.mktemp("mlflow"), OPERATOR_PASSWORD=PASSWORD) as url:
        yield url


@pytest.mark.service
def test_only_the_operator_gets_in(url: str) -> None:
    for path in ("/", SEARCH, "/ajax-api/2.0/mlflow/experiments/search", "/graphql", "/version", "/static-files/x"):
        for method in ("GET", "POST"):
            assert httpx.request(method, url + path, json={}).status_code == 401, path
    assert httpx.get(url, auth=("operator", "another password")).status_code == 401
    assert httpx.get(url, auth=OPERATOR).status_code == 200
    assert httpx.post(url + SEARCH, json={"max_results": 5}, auth=OPERATOR).status_code == 200


@pytest.mark.service
def test_other_names_other_sites_and_forms_are_refused(url: str) -> None:
    ask = {"json": {"max_results": 5}, "auth": OPERATOR}
    assert httpx.post(url + SEARCH, headers={"host": "evil.example"}, **ask).status_code == 421
    assert httpx.post(url + SEARCH, headers={"origin": "http://evil.example"}, **ask).status_code == 403
    assert httpx.post(url + SEARCH, headers={"origin": "http://localhost:9"}, **ask).status_code == 403
    text = {"content": b'{"max_results": 5}', "auth": OPERATOR}
    assert httpx.post(url + SEARCH, headers={"content-type": "text/plain"}, **text).status_code == 415
    for path in ("/ajax-api/3.0/mlflow/assistant/config", "/ajax-api/3.0/jobs/1", "/gateway/x"):
        assert httpx.get(url + path, auth=OPERATOR).status_code == 404


@pytest.mark.service
def test_the_platform_s_own_client_logs_in_by_the_environment(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ConsoleSettings(password=PASSWORD).tracking_environment.items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(tracking_uri=url)
    run = client.create_run(client.create_experiment("of the platform"))
    client.log_metric(run.info.run_id, "auc", 0.5)
    file = tmp_path / "notes.txt"
    file.write_text("an artefact of a type that a form could send")
    client.log_artifact(run.info.run_id, str(file))
    assert [found.path for found in client.list_artifacts(run.info.run_id)] == ["notes.txt"]
    assert client.get_run(run.info.run_id).data.metrics == {"auc": 0.5}


@pytest.mark.service
def test_it_does_not_listen_beyond_loopback_without_a_password(tmp_path: Path) -> None:
    environment = {**os.environ, "MLFLOW_HOST": "0.0.0.0"}
    environment.pop("OPERATOR_PASSWORD", None)
    command = [sys.executable, "-m", "training.tracking.server", "--host", "0.0.0.0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OPERATOR_PASSWORD" in done.stderr


def test_a_version_of_mlflow_that_starts_otherwise_does_not_start_unguarded() -> None:
    command = guarded_command(lambda *arguments: [str(part) for part in arguments])
    assert "training.tracking.server:guarded_application" in command(None, "h", 1, 1, MLFLOWS_OWN)
    with pytest.raises(UnguardedError):
        command(None, "h", 1, 1, "mlflow.server:app")
