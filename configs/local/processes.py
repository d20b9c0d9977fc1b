"""The processes of one machine, and their configuration for supervisor."""

import os
import sys
import tempfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from configs.addresses import PortSettings
from configs.console_guard import ConsoleSettings
from configs.files import write_private
from configs.local.launch import BACKGROUND_OPTION
from configs.settings import PathSettings

SOCKET_PATH_LIMIT = 100  # the kernel's limit is 108 bytes with the terminating zero
THREADS = "2"
DRAIN_SECONDS = 10
"""After SIGTERM, the API answers the requests that it has for so long, before it cuts them off."""
FLUSH_SECONDS = 20
"""Then it writes the last counts and impressions. Where the database does not answer, each of them waits for it."""


@dataclass(frozen=True)
class Program:
    """One supervised process: a command that runs in the project's root, and variables that it alone gets."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    stop_seconds: int = 10  # after SIGTERM, until it is killed
    is_background: bool = False  # runs with low priority, since nobody waits for its answers


def programs(
    ports: PortSettings,
    paths: PathSettings,
    api: dict[str, str],
    pipeline: dict[str, str],
    stripe: dict[str, str] | None = None,
) -> list[Program]:
    """All programs, in the order of their start.

    Args:
        api: variables of the API alone, such as its secrets.
        pipeline: variables of Dagster alone.
        stripe: variables of the stand-in for Stripe; None runs no stand-in.
    """
    python = sys.executable
    serving_url, mlflow_url = ports.url("serving"), ports.url("mlflow")
    login = ConsoleSettings().tracking_environment
    mlflow = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_HOST": ports.mlflow_host,
        "MLFLOW_PORT": str(ports.mlflow),
    }
    stand_in = [] if stripe is None else [Program("stripe", stripe_command(ports, paths), stripe)]
    return [
        Program("postgres", [python, "-m", "api", "postgres"], stop_seconds=30),
        Program("mlflow", mlflow_command(ports, paths), mlflow, is_background=True),
        Program("serving", [python, "-m", "serving", "serve"], {"SERVING_PORT": str(ports.serving)}),
        *stand_in,
        Program(
            "api",
            [python, "-m", "api", "serve"],
            {"API_PORT": str(ports.api), "SERVING_URL": serving_url, **api},
            stop_seconds=DRAIN_SECONDS + FLUSH_SECONDS,
        ),
        Program(
            "dagster",
            [python, "-m", "pipelines", "ui"],
            {"DAGSTER_PORT": str(ports.dagster), "MLFLOW_TRACKING_URI": mlflow_url, **login, **pipeline},
            stop_seconds=20,
            is_background=True,
        ),
    ]


def mlflow_command(ports: PortSettings, paths: PathSettings) -> list[str]:
    """MLflow's server, guarded, over the state folder's store. One worker is enough for a few data scientists."""
    return [
        *(sys.executable, "-m", "training.tracking.server", "--workers", "1"),
        *("--host", ports.mlflow_host, "--port", str(ports.mlflow)),
        *("--backend-store-uri", f"sqlite:///{paths.mlflow / 'mlflow.db'}"),
        *("--artifacts-destination", str(paths.mlflow / "artifacts")),
    ]


def stripe_command(ports: PortSettings, paths: PathSettings) -> list[str]:
    """The stand-in for Stripe over its state file. It sends its events to the API."""
    return [
        *(sys.executable, "-m", "tests.fixtures.stripe", "--port", str(ports.stripe)),
        *("--state", str(paths.root / "stripe.json")),
        *("--webhook-url", f"{ports.url('api')}/api/billing/webhook"),
    ]


def shared_environment(paths: PathSettings) -> dict[str, str]:
    """Variables that every process of this installation gets."""
    return {
        "RECOMMENDAI_STATE_DIR": str(paths.root),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", THREADS),
        # Waiting threads sleep instead of spinning. On cores that other processes use, a spinning thread keeps the
        # thread that it waits for from running (measured: a softmax takes 7 times as long on two busy cores).
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "PYTHONUNBUFFERED": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }


def configuration(all_programs: list[Program], paths: PathSettings, root: Path) -> str:
    """The text of supervisord.conf. `postgres` starts with supervisord, the other programs on request."""
    sections = [
        _section("unix_http_server", {"file": str(socket_path(paths)), "chmod": "0700"}),
        _section(
            "supervisord",
            {
                "directory": str(root),
                "logfile": str(paths.logs / "supervisord.log"),
                "logfile_maxbytes": "10MB",
                "logfile_backups": "2",
                "pidfile": str(paths.root / "supervisord.pid"),
                "childlogdir": str(paths.logs),
                "silent": "true",
            },
        ),
        _section(
            "rpcinterface:supervisor",
            {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
        _section("supervisorctl", {"serverurl": f"unix://{socket_path(paths)}"}),
    ]
    for priority, program in enumerate(all_programs):
        options = [BACKGROUND_OPTION] if program.is_background else []
        command = [sys.executable, "-m", "configs.local.launch", *options, program.name, *program.command]
        sections.append(
            _section(
                f"program:{program.name}",
                {
                    "command": " ".join(_quoted(word) for word in command),
                    "environment": _environment({**shared_environment(paths), **program.environment}),
                    "priority": str(priority),
                    "autostart": "true" if program.name == "postgres" else "false",
                    "autorestart": "true",
                    "startsecs": "2",
                    "startretries": "100",
                    "stopasgroup": "true" if program.name != "postgres" else "false",
                    "killasgroup": "true",
                    "stopwaitsecs": str(program.stop_seconds),
                    "redirect_stderr": "true",
                    "stdout_logfile": str(paths.logs / f"{program.name}.log"),
                    "stdout_logfile_maxbytes": "20MB",
                    "stdout_logfile_backups": "2",
                },
            )
        )
    return "\n".join(sections)


def write_configuration(all_programs: list[Program], paths: PathSettings, root: Path) -> Path:
    """Write supervisord.conf into the state folder, readable by its owner alone, since it holds secrets."""
    target = paths.root / "supervisord.conf"
    for folder in (paths.logs, paths.mlflow):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(target, configuration(all_programs, paths, root))
    return target


def socket_path(paths: PathSettings) -> Path:
    """The control socket of supervisord: in the state folder, or in the temporary folder where its path is too long."""
    path = paths.root / "supervisor.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    name = sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"recommendai-{os.getuid()}-{name}.sock"


def _section(name: str, values: dict[str, str]) -> str:
    # In this format a per cent sign starts an expansion.
    lines = [f"{key} = {value.replace('%', '%%')}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _environment(values: dict[str, str]) -> str:
    return ",".join(f"{key}={_quoted(value)}" for key, value in sorted(values.items()))


def _quoted(value: str) -> str:
    if '"' in value or "\n" in value:
        # The value may be a secret, so the message does not hold it.
        raise ValueError("a setting of a supervised program, such as a password, holds a double quote or a line break")
    return f'"{value}"'
