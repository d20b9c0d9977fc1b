"""A Ray cluster of two machines on this one, for the whole run."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import psutil
import pytest

from configs.addresses import LOOPBACK
from configs.compute import ray_environment
from configs.files import kept_secret
from pipelines.compute.ray_cluster import RayCompute
from tests.fixtures.platform import free_ports

PATIENT = {
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_raylet_start_wait_time_s": "300",
}
"""Deadlines of Ray's processes, since workers of the tests share few cores."""


AGENTS = {
    "metrics_agent_port": "METRICS_AGENT_PORT_NAME",
    "metrics_export_port": "METRICS_EXPORT_PORT_NAME",
    "dashboard_agent_listen_port": "DASHBOARD_AGENT_LISTEN_PORT_NAME",
    "runtime_env_agent_port": "RUNTIME_ENV_AGENT_PORT_NAME",
}
"""Ports of a machine's agents: the argument, and the constant that names the port's file."""


def machine() -> dict[str, Any]:
    """The arguments of a machine. With ports given, its raylet waits for none of its agents."""
    ports = dict(zip(AGENTS, free_ports(len(AGENTS)), strict=True))
    return {"num_cpus": 1, "node_ip_address": LOOPBACK, "include_log_monitor": False, **ports}


def told_ports(start: Callable[..., Any]) -> Callable[..., Any]:
    """`start_raylet`, with the ports of its agents in the files that it waits for.

    A raylet gives up after 15 s where its agents have not written them, though it was given the ports. On a busy
    machine an agent takes longer to load.
    """
    from ray import _raylet

    def start_raylet(*arguments: Any, **named: Any) -> Any:
        call = signature(start).bind(*arguments, **named).arguments
        for option, name in AGENTS.items():
            _raylet.persist_port(call["session_dir"], call["node_id"], getattr(_raylet, name), call[option])
        return start(*arguments, **named)

    return start_raylet


@dataclass
class Machines:
    """The head, which this process is connected to, and a second machine, each with one processor."""

    cluster: Any
    second: Any
    token_file: Path

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    @property
    def compute(self) -> RayCompute:
        return RayCompute(self.address, self.token_file)

    def add_second(self) -> None:
        self.second = self.cluster.add_node(**machine())

    def kill_second(self) -> None:
        """Kill the second machine's raylet, as a power cut would."""
        (raylet,) = self.second.all_processes["raylet"]
        raylet.process.kill()
        raylet.process.wait()

    def replace_second(self) -> None:
        """Another machine in the place of the second one, which was killed."""
        self.cluster.remove_node(self.second)
        self.add_second()


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets have short paths
    token_file = folder / "ray.token"
    kept_secret(token_file)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**ray_environment(token_file, LOOPBACK), **PATIENT, "RAY_TMPDIR": str(folder)}.items():
            patched.setenv(name, value)
        import ray
        from ray._private import services
        from ray.cluster_utils import Cluster

        patched.setattr(services, "start_raylet", told_ports(services.start_raylet))

        head = {"include_dashboard": False, "no_monitor": True}
        try:
            cluster = Cluster(initialize_head=True, head_node_args={**head, **machine()})
            both = Machines(cluster, None, token_file)
            both.add_second()
            yield both
            ray.shutdown()
            cluster.shutdown()
        finally:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it ends by itself
                    if str(folder) in " ".join(process.cmdline()):
                        process.kill()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def two(machines: Machines) -> Iterator[Machines]:
    """Both machines, the second of which the test may kill."""
    yield machines
    if not machines.second.remaining_processes_alive():
        machines.replace_second()
