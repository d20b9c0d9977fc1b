"""`python -m pipelines code`, `web`, `daemon` and `check`: Dagster's programs, each under a supervisor of its own.

`python -m pipelines ui` is for one machine and one terminal. Here each program is replaced, restarted and watched
alone, as a unit of systemd or a container (`configs/deploy`). All three share the state folder.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import typer

from configs.addresses import PortSettings
from configs.console_guard import OPERATOR, ConsoleSettings
from configs.settings import PathSettings
from configs.state_check import UnusableStateError, require_usable_state
from pipelines.dagster_programs import (
    START_SECONDS,
    LongSocketError,
    await_code_server,
    check_command,
    code_command,
    code_socket,
    daemon_command,
    web_command,
    write_workspace,
)

app = typer.Typer()


@app.command()
def code() -> None:
    """Serve the definitions and start their runs, for `web` and `daemon` beside it. Its runs end with it.

    Runs that an earlier one left are marked as failed as soon as it serves; the daemon then starts them again.
    """
    from pipelines.instance import open_instance
    from pipelines.runs import abandoned_runs

    refuse_unusable_state()
    paths = PathSettings()
    address = _code_socket(paths)
    with open_instance(paths) as instance:
        abandoned = abandoned_runs(instance)
    if abandoned:
        # The shell ends at once. So the program is no child of this process, which becomes the server and would not
        # collect its exit status.
        command = [sys.executable, "-m", "pipelines", "fail-runs", *abandoned]
        subprocess.run(["sh", "-c", '"$@" &', "sh", *command], check=True)
    os.environ.update(ConsoleSettings().tracking_environment)  # its runs log in to MLflow
    _become(code_command(address))


@app.command("fail-runs", hidden=True)
def fail_abandoned_runs(run_ids: list[str]) -> None:
    """Mark these runs as failed once `code` serves the definitions. `code` starts this command."""
    from pipelines.instance import open_instance
    from pipelines.runs import fail_runs

    paths = PathSettings()
    _await_code_server(_code_socket(paths))
    with open_instance(paths) as instance:
        for run_id in fail_runs(instance, run_ids):
            print(f"run {run_id} was cut off earlier and is marked as failed", file=sys.stderr)


@app.command()
def web() -> None:
    """Serve Dagster's console behind the guard, on DAGSTER_HOST and DAGSTER_PORT. It waits for `code`."""
    refuse_open_console(PortSettings(), ConsoleSettings())
    ports = PortSettings()
    _become(web_command(_workspace(), ports.dagster_host, ports.dagster))


@app.command()
def daemon() -> None:
    """Run schedules and sensors. It waits for `code`."""
    _become(daemon_command(_workspace()))


@app.command("check")
def check_code_server() -> None:
    """Whether `code` serves the definitions: status 0 or 1."""
    _become(check_command(_code_socket(PathSettings())))


def refuse_open_console(ports: PortSettings, console: ConsoleSettings) -> None:
    """End with advice where other machines could reach Dagster's console without a password."""
    if not ports.beyond_loopback("dagster"):
        return
    if console.password is None:
        _fail(f"DAGSTER_HOST is {ports.dagster_host}, which other machines reach: set OPERATOR_PASSWORD as well")
    print(f"Dagster listens on {ports.dagster_host}: log in as {OPERATOR!r}, with TLS in front of it", file=sys.stderr)


def refuse_unusable_state() -> None:
    """End with advice where `STATE_URL` is set and cannot be used as it is."""
    try:
        require_usable_state(writes=True)
    except UnusableStateError as error:
        _fail(str(error))


def _workspace() -> Path:
    """The file that names the code server, once that answers."""
    from pipelines.instance import prepare_home

    paths = PathSettings()
    address = _code_socket(paths)
    home = prepare_home(paths)
    _await_code_server(address)
    return write_workspace(home, address)


def _await_code_server(address: Path) -> None:
    if not await_code_server(address):
        _fail(f"nothing serves the definitions at {address} within {START_SECONDS} s: run `python -m pipelines code`")


def _code_socket(paths: PathSettings) -> Path:
    try:
        return code_socket(paths)
    except LongSocketError as error:
        _fail(str(error))


def _become(command: list[str]) -> NoReturn:
    """Replace this process by the command, which its supervisor then watches and ends."""
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    os.execv(command[0], command)  # noqa: S606


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(1)
