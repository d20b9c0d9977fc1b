"""MLflow's server behind the guard of the consoles: `python -m training.tracking.server`, arguments of `mlflow server`.

MLflow's command starts uvicorn in a process of its own and names it the application. It takes no middleware, so the
name is replaced by that of `guarded_application`.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mlflow import server
from mlflow.cli import cli

from configs.addresses import PortSettings
from configs.console_guard import LOOPBACK_NAMES, OPERATOR, ConsoleGuard, ConsoleRules, ConsoleSettings

MLFLOWS_OWN = "mlflow.server.fastapi_app:app"
GUARDED = "training.tracking.server:guarded_application"
RULES = ConsoleRules(
    takes_files=True,
    open_paths=("/health",),
    # An assistant that runs commands on this machine, jobs that run code, and a gateway to paid language models: none
    # is used here, and MLflow lets everybody on this machine use the first.
    closed_paths=("/ajax-api/3.0/mlflow/assistant", "/ajax-api/3.0/jobs", "/gateway"),
)


class UnguardedError(Exception):
    """This version of MLflow starts its server in another way, so that the guard would not be in front of it."""


def guarded_application() -> ConsoleGuard:
    """MLflow's application, which answers through the guard alone."""
    from mlflow.server.fastapi_app import app

    settings = ConsoleSettings()
    return ConsoleGuard(app, settings.hosts, settings.password_text, RULES)


def main() -> None:
    """Serve until a signal ends it. Raises SystemExit where other machines could reach it without a password."""
    ports, console = PortSettings(), ConsoleSettings()
    if ports.beyond_loopback("mlflow"):
        if console.password is None:
            sys.exit(f"MLFLOW_HOST is {ports.mlflow_host}, which other machines reach: set OPERATOR_PASSWORD as well")
        print(
            f"MLflow listens on {ports.mlflow_host}: log in as {OPERATOR!r}, with TLS in front of it", file=sys.stderr
        )
    os.environ |= allowed_names(console, ports)
    vars(server)["_build_uvicorn_command"] = guarded_command(vars(server)["_build_uvicorn_command"])
    cli(["server", *sys.argv[1:]])


def guarded_command(build: Callable[..., Sequence[str]]) -> Callable[..., Sequence[str]]:
    """MLflow's function that makes uvicorn's command, for the guarded application."""

    def command(
        options: Any, host: Any, port: Any, workers: Any, app: str, env_file: Any = None, is_factory: bool = False
    ) -> Sequence[str]:
        if app != MLFLOWS_OWN or is_factory:
            raise UnguardedError(f"MLflow starts {app}, not {MLFLOWS_OWN}")
        return build(options, host, port, workers, GUARDED, env_file, True)

    return command


def allowed_names(console: ConsoleSettings, ports: PortSettings) -> dict[str, str]:
    """The variables that tell MLflow's own checks the names that the guard lets through."""
    names = (*LOOPBACK_NAMES, *console.hosts)
    origins = [f"{scheme}://{name}{port}" for name in console.hosts for scheme in ("http", "https")
               for port in ("", f":{ports.mlflow}")]  # fmt: skip
    return {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(part for name in names for part in (name, f"{name}:*")),
        **({"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins)} if origins else {}),
    }


if __name__ == "__main__":
    main()
