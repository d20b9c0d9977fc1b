"""The demo's Ray cluster: one machine on loopback, with a token, which ends with the demo."""

import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from configs.local.demo_ray import DemoRay
from configs.local.demo_state import DemoState
from configs.local.launch import survivors
from configs.local.processes import shared_environment, write_configuration
from configs.local.supervision import Supervisor
from configs.settings import PathSettings
from tests.fixtures.platform import ROOT, wait_until

CLIENT = """
from configs.compute import ComputeSettings
from configs.settings import PathSettings
from pipelines.compute.choice import compute_of
from tests.compute.functions import Range, total

compute = compute_of(ComputeSettings(), PathSettings())
print(type(compute).__name__, list(compute.map(total, [Range(0, 3), Range(3, 5)])), flush=True)
input()
"""
"""A pipeline, as far as Ray is concerned."""
STRANGER = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'')"


@pytest.fixture
def demo_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoRay:
    monkeypatch.setenv("COMPUTE", "ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    state = DemoState(tmp_path / "demo.state")
    return DemoRay(PathSettings(state_dir=tmp_path), state.get, state.put)


def listening(pids: list[int]) -> dict[str, set[str]]:
    """The addresses that processes listen on, by the name of the process."""
    found: dict[str, set[str]] = {}
    for pid in pids:
        try:
            process = psutil.Process(pid)
            addresses = {each.laddr.ip for each in process.net_connections("inet") if each.status == "LISTEN"}
            found.setdefault(process.name(), set()).update(addresses)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.service
def test_the_demo_starts_a_cluster_that_its_pipelines_use_and_ends_all_of_it(demo_ray: DemoRay, tmp_path: Path) -> None:
    paths = PathSettings(state_dir=tmp_path)
    demo_ray.prepare()
    identity, folder = f"ray@{paths.root}", demo_ray.folder
    assert folder is not None and folder.exists()
    write_configuration(demo_ray.programs, paths, ROOT)
    supervisor = Supervisor(paths, ROOT)
    supervisor.start(wait_seconds=180)
    environment = {**os.environ, **shared_environment(paths), **demo_ray.pipeline_environment}
    client = None
    try:
        supervisor.start_program("ray")
        wait_until("Ray", demo_ray.is_up, 300)
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None and client.stdout.readline() == "RayCompute [3, 7]\n"
        found = listening([*survivors(identity), client.pid])
        assert {"gcs_server", "raylet"} <= {name for name, addresses in found.items() if addresses}
        for name, addresses in found.items():
            assert all(ip_address(each.removeprefix("::ffff:")).is_loopback for each in addresses), (name, addresses)
        commands = [psutil.Process(each).cmdline() for each in survivors(identity)]
        assert all("--disable-frontend" in each for each in commands if any("dashboard.py" in word for word in each))

        without_token = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")}
        refused = subprocess.run(
            [sys.executable, "-c", STRANGER, demo_ray.address],
            cwd=ROOT,
            env={**without_token, "RAY_AUTH_MODE": "disabled", "RAY_gcs_rpc_server_connect_timeout_s": "2"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert refused.returncode != 0
        assert "authenticat" in refused.stderr.lower() or "token" in refused.stderr.lower()
    finally:
        if client is not None:
            client.communicate("\n")
        supervisor.stop()
        demo_ray.remove_folder()
    wait_until("the end of every process", lambda: not survivors(identity))
    assert not folder.exists()


def test_another_cluster_is_used_where_it_is_named_and_none_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = DemoState(tmp_path / "demo.state")
    paths = PathSettings(state_dir=tmp_path)
    monkeypatch.delenv("COMPUTE", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plain = DemoRay(paths, state.get, state.put)
    plain.prepare()
    assert (plain.kind, plain.programs, plain.pipeline_environment) == ("this machine without Ray", [], {})
    monkeypatch.setenv("COMPUTE", "ray")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    other = DemoRay(paths, state.get, state.put)
    other.prepare()
    assert (other.kind, other.programs) == ("the Ray cluster at 10.0.0.1:6379", [])
    assert not (tmp_path / "ray.token").exists()
