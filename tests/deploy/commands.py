"""Whether a command line of the deployment would run: its arguments are parsed by the program's own parser."""

from importlib import import_module
from pathlib import Path

import click
import typer

PYTHON = "/opt/recommendai/.venv/bin/python"
"""The interpreter in the image and in the units."""


def parse_by_program(words: list[str]) -> None:
    """Parse `python -m MODULE ARGUMENTS` without running it. Raises click.UsageError, or AssertionError.

    Typer's commands, and those of Dagster and MLflow, are all commands of click.
    """
    assert words[:2] == [PYTHON, "-m"], words
    module, arguments = words[2], words[3:]
    if module == "configs.health_check":
        (url,) = arguments
        assert url.startswith("http://127.0.0.1:")
        return
    if module == "training.tracking.server":
        from mlflow.cli import cli

        _parse(cli, ["server", *arguments])
        return
    _parse(_command_line(module), arguments)


def _command_line(module: str) -> click.Command:
    if module == "dagster._daemon":
        return import_module("dagster._daemon.cli").create_dagster_daemon_cli()
    if module == "api":
        return typer.main.get_command(import_module("api.cli").all_commands())
    return typer.main.get_command(import_module(f"{module}.__main__").app)


def _parse(command: click.Command, arguments: list[str]) -> None:
    rest = list(arguments)
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(click.Context(command), rest)
        assert found is not None
        command = found
    command.make_context("command", rest)


def logical_lines(path: Path) -> list[str]:
    """The lines of a file without comments and empty ones; a backslash at the end continues a line."""
    text = path.read_text().replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
