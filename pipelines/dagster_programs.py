"""Dagster's three programs: the server of our definitions, the web server, and the daemon of schedules and sensors.

`python -m pipelines ui` runs all three over a socket of their own (`pipelines.console`). Where each is supervised by
itself (`configs/deploy`), `python -m pipelines code`, `web` and `daemon` run one each, over a socket in the state
folder. Whoever reaches that server executes code: it is a socket that this user alone may open, and never a port.
"""

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from configs.files import write_text
from configs.settings import PathSettings

LOCATION = "pipelines.definitions"
"""The module of the definitions and the name of their code location, by which the states of sensors are kept."""
START_SECONDS = 180
"""A deadline for a server that does not come up; a busy machine needs a minute."""
CHECK_SECONDS = 0.5
SOCKET_BYTES = 100  # the kernel's limit is 108 bytes with the terminating zero


class LongSocketError(Exception):
    """The state folder's path is too long for the socket in it."""


def code_socket(paths: PathSettings) -> Path:
    """The socket of the code server in the state folder. Raises LongSocketError."""
    found = paths.dagster / "code.sock"
    if len(os.fsencode(found)) > SOCKET_BYTES:
        raise LongSocketError(f"{found} is too long for a socket: choose a shorter RECOMMENDAI_STATE_DIR")
    return found


def write_workspace(folder: Path, address: Path) -> Path:
    """Write the file that tells the web server and the daemon where the code server is, and return its path."""
    workspace = folder / "workspace.yaml"
    entry = {"grpc_server": {"socket": str(address), "location_name": LOCATION}}
    write_text(workspace, yaml.safe_dump({"load_from": [entry]}))
    return workspace


def code_command(address: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "dagster", "code-server", "start", "-m", LOCATION, "--socket", str(address)),
        *("--location-name", LOCATION, "--log-level", "warning", "--use-python-environment-entry-point"),
    ]


def web_command(workspace: Path, host: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "pipelines.webserver", "-w", str(workspace)),
        *("--host", host, "--port", str(port)),
    ]


def daemon_command(workspace: Path) -> list[str]:
    return [sys.executable, "-m", "dagster._daemon", "run", "-w", str(workspace)]


def check_command(address: Path) -> list[str]:
    return [sys.executable, "-m", "dagster", "api", "grpc-health-check", "--socket", str(address)]


def await_code_server(address: Path, meanwhile: Callable[[], None] = lambda: None) -> bool:
    """Wait until the code server takes connections; False where it does not within START_SECONDS.

    meanwhile: called before each attempt.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        meanwhile()
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(address))
            except OSError:
                time.sleep(CHECK_SECONDS)
            else:
                return True
    return False
