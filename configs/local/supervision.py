"""Controls the installation's supervisord: starts it as a child and calls it over its private socket."""

import os
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

from supervisor.states import RUNNING_STATES
from supervisor.xmlrpc import Faults, SupervisorTransport

from configs.files import PRIVATE_UMASK
from configs.local.processes import socket_path
from configs.settings import PathSettings

STOP_SECONDS = 140.0
"""Programs are stopped one after another. This is more than all of them together may take (`Program.stop_seconds`)."""


class Supervisor:
    """One installation's supervisord, started here or in another terminal."""

    def __init__(self, paths: PathSettings, root: Path) -> None:
        self._paths = paths
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None

    def running(self) -> bool:
        """Whether a supervisord answers on this installation's socket."""
        try:
            self._remote().getState()
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def start(self, wait_seconds: float = 15.0) -> None:
        """Start supervisord and wait until it answers. Raises SystemExit with the path of its log where it does not."""
        configuration = self._paths.root / "supervisord.conf"
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(configuration)]
        # In a process group of its own, so that Ctrl-C reaches only this process, which stops programs in order.
        self._process = subprocess.Popen(
            command, cwd=self._root, process_group=0, stdin=subprocess.DEVNULL, umask=PRIVATE_UMASK
        )
        deadline = time.monotonic() + wait_seconds
        while not self.running():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"supervisord did not start; see {self._paths.logs / 'supervisord.log'}")
            time.sleep(0.1)

    def start_program(self, name: str) -> None:
        """Start one program, unless it is running."""
        remote = self._remote()
        if remote.getProcessInfo(name)["state"] in RUNNING_STATES:
            return
        try:
            remote.startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise

    def stop_program(self, name: str) -> None:
        """Stop one program and wait until it has ended."""
        self._remote().stopProcess(name, True)

    def wait(self) -> int:
        """Wait until supervisord ends. Returns its exit status."""
        if self._process is None:
            raise RuntimeError("this supervisord was not started here")
        return self._process.wait()

    def stop(self) -> None:
        """Stop all programs and supervisord, where it was started here."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()

    def _remote(self) -> Any:
        transport = SupervisorTransport(None, None, serverurl=f"unix://{socket_path(self._paths)}")
        return xmlrpc.client.ServerProxy("http://supervisor", transport=transport).supervisor
