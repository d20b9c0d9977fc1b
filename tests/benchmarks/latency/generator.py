"""The load: `wrk` with one thread, or where it is missing, our own generator in a process of its own."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tests.benchmarks.load import Load

SCRIPT = Path(__file__).with_name("requests.lua")
TIMEOUT_SECONDS = 10
DRAWS = 20_000
ONCE_SECONDS = 600.0
"""A bound on a run that sends every body once. Such a run ends by itself."""
ALL_ANSWERED = "all answered"
"""The line with which `requests.lua` says that such a run is over."""


def name_of_generator() -> str:
    """What sends the requests, with its version."""
    if shutil.which("wrk") is None:
        return "the generator of tests/benchmarks/load.py"
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)  # exits with 1
    return " ".join((said.stdout + said.stderr).split()[:2])


def send(
    url: str, headers: dict[str, str], bodies: Sequence[str], clients: int, seconds: float, *, once: bool = False
) -> dict[str, Any]:
    """One run: POST bodies that are drawn at random, or each body once.

    Returns requests, requests_per_second, p50_ms, p99_ms, max_ms, degraded, errors.
    """
    if shutil.which("wrk") is None:
        return generate(_own_load(url, headers, bodies, clients, seconds, once=once))
    with tempfile.NamedTemporaryFile("w", suffix=".bodies") as file:
        file.write("\n".join(bodies) + "\n")
        file.flush()
        options = ["-t1", f"-c{clients}", f"-d{max(1, round(ONCE_SECONDS if once else seconds))}s"]
        command = ["wrk", *options, "--timeout", f"{TIMEOUT_SECONDS}s", "-s", str(SCRIPT), url, "--", file.name]
        own = ["once" if once else "random", *(f"{name}:{value}" for name, value in headers.items())]
        process = subprocess.Popen([*command, *own], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.strip() == ALL_ANSWERED:
                process.send_signal(signal.SIGINT)
        if process.wait():
            raise RuntimeError("wrk failed: " + "".join(said))
    return dict(json.loads(said[-1]))


def generate(load: Load) -> dict[str, Any]:
    """One run of our own generator."""
    command = [sys.executable, "-m", "tests.benchmarks.load"]
    said = subprocess.run(command, input=json.dumps(load.__dict__), stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(said.stdout))


def _own_load(
    url: str, headers: dict[str, str], bodies: Sequence[str], clients: int, seconds: float, *, once: bool
) -> Load:
    place = urlsplit(url)
    if not once:
        bodies = [bodies[index] for index in np.random.default_rng().integers(len(bodies), size=DRAWS)]
    return Load(
        host=place.hostname or "",
        port=place.port or 80,
        path=place.path,
        headers=headers,
        bodies=list(bodies),
        clients=clients,
        seconds=ONCE_SECONDS if once else seconds,
        rounds=1 if once else None,
    )
