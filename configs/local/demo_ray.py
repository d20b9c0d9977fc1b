"""The demo's Ray cluster, with `COMPUTE=ray`: this machine alone, unless `RAY_ADDRESS` names another cluster."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from configs.addresses import LOOPBACK
from configs.compute import ComputeSettings, ray_environment
from configs.files import kept_secret
from configs.local.ports import refusal_of_port, unused_port
from configs.local.processes import Program
from configs.settings import PathSettings

OBJECT_STORE_BYTES = 200_000_000
"""Memory for what travels between tasks. Tables travel as files."""
_ADDRESS_FILE = "ray_current_cluster"
"""Ray writes it into its folder when the machine is ready."""

_PATIENT = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}
"""Deadlines of Ray's processes, since the demo's machine is busy. A start that fails all the same is repeated by the
supervisor. The end of the demo waits for no task."""


class DemoRay:
    """The Ray cluster that the demo's pipelines use.

    Ray keeps its sockets and logs in a folder of the temporary folder, since paths of sockets are short. It is deleted
    when the demo ends.

    Args:
        paths: of the installation, whose state folder has the cluster's token.
        get, put: of the demo's state.
    """

    def __init__(self, paths: PathSettings, get: Callable[[str], str], put: Callable[[str, str], None]) -> None:
        self._get, self._put = get, put
        own = f"{LOOPBACK}:{get('RAY_PORT') or 0}"
        self._given = ComputeSettings(engine="local").ray_address
        self._settings = ComputeSettings(ray_address=self._given or own)
        self._token_file = self._settings.token_file or paths.ray_token_file

    @property
    def kind(self) -> str:
        """Where the pipelines' tasks run, in words."""
        if self._settings.engine == "local":
            return "this machine without Ray"
        return "a Ray cluster of its own" if self.runs_here else f"the Ray cluster at {self._given}"

    @property
    def runs_here(self) -> bool:
        """Whether the demo starts the cluster."""
        return self._settings.engine == "ray" and self._given is None

    def prepare(self) -> None:
        """Choose ports, of which the head's is kept as long as it stays free, and make the token and an empty folder.

        Raises SystemExit with advice where Ray is not installed.
        """
        self.remove_folder()  # of a demo that was killed
        if not self.runs_here:
            return
        if find_spec("ray") is None:
            raise SystemExit("COMPUTE=ray needs Ray: pip install 'recommendai[ray]'")
        kept = self._get("RAY_PORT")
        if not kept or refusal_of_port(LOOPBACK, int(kept)):
            self._put("RAY_PORT", str(unused_port(LOOPBACK)))
        # Ray starts a server for its remote clients, which nothing here is, and has no option that leaves it out.
        while (other := str(unused_port(LOOPBACK))) == self._get("RAY_PORT"):
            pass
        self._put("RAY_CLIENT_PORT", other)
        kept_secret(self._token_file)
        self._put("RAY_FOLDER", tempfile.mkdtemp(prefix="ray-"))

    def remove_folder(self) -> None:
        """Delete what Ray wrote. Call it when Ray does not run."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._put("RAY_FOLDER", "")

    @property
    def folder(self) -> Path | None:
        """Where Ray keeps its sockets and logs, between `prepare` and `remove_folder`."""
        kept = self._get("RAY_FOLDER")
        return Path(kept) if kept else None

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self._get('RAY_PORT')}"

    @property
    def pipeline_environment(self) -> dict[str, str]:
        """The variables of the pipelines. They inherit the address of another cluster."""
        return {"COMPUTE": "ray", "RAY_ADDRESS": self.address} if self.runs_here else {}

    @property
    def programs(self) -> list[Program]:
        """The head of the cluster, which is its only machine; nothing where it does not run here."""
        if not self.runs_here:
            return []
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *(f"--node-ip-address={LOOPBACK}", f"--port={self._get('RAY_PORT')}"),
            f"--ray-client-server-port={self._get('RAY_CLIENT_PORT')}",
            *("--include-dashboard=false", "--disable-usage-stats", "--include-log-monitor=false", "--no-monitor"),
            *(f"--num-cpus={os.cpu_count() or 1}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
            f"--temp-dir={self.folder}",
        ]
        environment = {**ray_environment(self._token_file, LOOPBACK), **_PATIENT}
        return [Program("ray", command, environment, stop_seconds=20, is_background=True)]

    def is_up(self) -> bool:
        """Whether the machine is ready for tasks."""
        return self.folder is not None and (self.folder / _ADDRESS_FILE).exists()
