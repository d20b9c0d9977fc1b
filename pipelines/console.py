"""Runs Dagster's three programs as children of one process (`pipelines.dagster_programs`).

`dagster dev` runs the same three, with a web server that nothing guards. Where one of the three ends, all end, and the
supervisor starts them anew.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from pipelines.dagster_programs import (
    CHECK_SECONDS,
    START_SECONDS,
    await_code_server,
    code_command,
    daemon_command,
    web_command,
    write_workspace,
)

STOP_SECONDS = 15


class ConsoleError(Exception):
    """A part of Dagster ended or did not come up."""


def run_console(host: str, port: int, before_daemon: Callable[[], None] = lambda: None) -> None:
    """Run all three until SIGTERM or SIGINT. Raises ConsoleError where one ends by itself or does not come up.

    before_daemon: is called once the code server answers, before the daemon starts.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryDirectory(prefix="recommendai-console-") as folder:
        address = Path(folder) / "code.sock"
        workspace = write_workspace(Path(folder), address)
        try:
            processes["code server"] = _start(code_command(address))
            if not await_code_server(address, lambda: _refuse_ended(processes)):
                raise ConsoleError(f"the code server did not come up within {START_SECONDS} s")
            before_daemon()
            processes["web server"] = _start(web_command(workspace, host, port))
            processes["daemon"] = _start(daemon_command(workspace))
            while True:
                _refuse_ended(processes)
                time.sleep(CHECK_SECONDS)
        except KeyboardInterrupt:
            return
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            _stop(list(processes.values()))


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env={**os.environ, "DAGSTER_DISABLE_TELEMETRY": "yes"})


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
