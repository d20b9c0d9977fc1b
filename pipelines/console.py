"""Runs Dagster: the server of our definitions, the web server, and the daemon of schedules and sensors.

`dagster dev` runs the same three, with a web server that nothing guards. Where one of the three ends, all end, and the
supervisor starts them anew.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import yaml

LOCATION = "pipelines.definitions"
"""The module of the definitions and the name of their code location, by which the states of sensors are kept."""
START_SECONDS = 180
"""A deadline for a server that does not come up; a busy machine needs a minute."""
STOP_SECONDS = 15
CHECK_SECONDS = 0.5


class ConsoleError(Exception):
    """A part of Dagster ended or did not come up."""


def run_console(host: str, port: int) -> None:
    """Run all three until SIGTERM or SIGINT. Raises ConsoleError where one ends by itself or does not come up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryDirectory(prefix="recommendai-console-") as folder:
        address, workspace = Path(folder) / "code.sock", Path(folder) / "workspace.yaml"
        entry = {"grpc_server": {"socket": str(address), "location_name": LOCATION}}
        workspace.write_text(yaml.safe_dump({"load_from": [entry]}))
        try:
            processes["code server"] = _start(
                *("dagster", "code-server", "start", "-m", LOCATION, "--socket", str(address)),
                *("--location-name", LOCATION, "--log-level", "warning", "--use-python-environment-entry-point"),
            )
            _wait_for(address, processes)
            served = ("-w", str(workspace))
            web = ("pipelines.webserver", *served, "--host", host, "--port", str(port))
            processes["web server"] = _start(*web)
            processes["daemon"] = _start("dagster._daemon", "run", *served)
            while True:
                _refuse_ended(processes)
                time.sleep(CHECK_SECONDS)
        except KeyboardInterrupt:
            return
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            _stop(list(processes.values()))


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "DAGSTER_DISABLE_TELEMETRY": "yes"}
    return subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment)


def _wait_for(address: Path, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        _refuse_ended(processes)
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(address))
            except OSError:
                time.sleep(CHECK_SECONDS)
            else:
                return
    raise ConsoleError(f"the code server did not come up within {START_SECONDS} s")


def _refuse_ended(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise ConsoleError(f"Dagster's {name} ended with status {process.returncode}")


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask all to end, the last first, and kill what has not ended in time."""
    for process in reversed(processes):
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in reversed(processes):
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
