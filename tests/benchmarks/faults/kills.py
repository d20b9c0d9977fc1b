"""Each program of the demo is killed under load, with SIGKILL and with all of its processes at once."""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from configs.local.demo import READY_PATHS
from tests.benchmarks.faults.load import FaultRow, under_load
from tests.benchmarks.processor_time import processes
from tests.benchmarks.running_demo import RunningDemo, Tenant
from tests.fixtures.platform import answers, wait_until

DAGSTER_PARTS = {"code server": "code-server", "web server": "pipelines.webserver", "daemon": "dagster._daemon"}
"""What the command line of each part of Dagster holds."""


def killed_api(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """Connections break with the process; what it had acknowledged stays."""
    return [_kill(demo, tenant, "api")]


def killed_serving(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """Popularity answers meanwhile, under its label."""
    return [_kill(demo, tenant, "serving")]


def killed_postgres(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """PostgreSQL recovers from its log; the API answers 503 meanwhile."""
    return [_kill(demo, tenant, "postgres")]


def killed_mlflow(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """No request needs it."""
    return [_kill(demo, tenant, "mlflow")]


def killed_dagster(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """Each of its three parts by itself, and all at once. No request needs it."""
    parts = [_kill(demo, tenant, "dagster", name, part) for name, part in DAGSTER_PARTS.items()]
    return [*parts, _kill(demo, tenant, "dagster")]


def _kill(demo: RunningDemo, tenant: Tenant, program: str, part: str = "", words: str = "") -> FaultRow:
    """words: of the command lines of those processes that are killed; empty: all of the program."""

    def trouble() -> float:
        victims = [each for each in processes(demo.paths, program) if words in _command_line(each)]
        if not victims:
            raise RuntimeError(f"{program} has no process {part}")
        began = time.monotonic()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        wait_until(f"the end of {program}", lambda: not any(_runs(each) for each in victims), 60)
        wait_until(program, partial(_is_whole, demo, tenant, program, words), 300)
        return began

    name = f"kill -9 {program}" + (f", {part}" if part else "")
    return under_load(name, demo, tenant, trouble, may_cut_off=program == "api")


def _is_whole(demo: RunningDemo, tenant: Tenant, program: str, words: str) -> bool:
    if not any(words in _command_line(each) for each in processes(demo.paths, program)):
        return False
    if program == "postgres":
        return answers(f"{demo.api_url}/health/ready")
    if program == "dagster":  # all three, because the others are restarted too
        lines = [_command_line(each) for each in processes(demo.paths, program)]
        if not all(any(part in line for line in lines) for part in DAGSTER_PARTS.values()):
            return False
    ready = answers(demo.values[f"{program.upper()}_URL"] + READY_PATHS[program])
    return ready and (program != "serving" or tenant.id in demo.releases())


def _command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _runs(process: int) -> bool:
    """A process that has ended and is not yet waited for has no command line."""
    return bool(_command_line(process))
