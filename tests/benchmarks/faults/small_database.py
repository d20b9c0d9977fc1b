"""The disk of PostgreSQL is full: an installation of its own, whose state folder is a small file system.

    python -m tests.benchmarks.faults.small_database FOLDER

The fault `full_disk_of_postgres` runs this in a mount namespace of its own, where FOLDER is the small file system. It
starts PostgreSQL and the API, writes interactions, fills the disk, goes on writing, makes room and goes on. The last
line of its output is JSON with what the client saw and what PostgreSQL holds.
"""

import errno
import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg

from configs.local.processes import shared_environment
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from tests.benchmarks.faults.disk import NAME, may_mount
from tests.benchmarks.faults.load import FaultRow
from tests.benchmarks.running_demo import RunningDemo, Tenant
from tests.feature_store.rows import add_items
from tests.fixtures.folders import open_folder
from tests.fixtures.platform import ROOT, answers, free_ports, wait_until

SIZE = "400m"
FULL_SECONDS = 20.0
WAIT_SECONDS = 300.0
TENANT = "disk"
PATH = "/api/v1/interactions"
RANDOM_BYTES = 1_500
"""In the metadata of an interaction, so that few fill what PostgreSQL has allotted already."""


def full_disk_of_postgres(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """Writes are refused with 503 while there is no room; nothing acknowledged is lost, and it recovers by itself."""
    if not may_mount():
        return [FaultRow("full disk of PostgreSQL", notes={"not run": "this user may not mount a small file system"})]
    folder = open_folder("small-database")
    script = f'set -e; mount -t tmpfs -o size={SIZE},mode=0777 {NAME} {folder}; exec "$@"'
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh"]
    module = [sys.executable, "-m", "tests.benchmarks.faults.small_database", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    try:
        done = subprocess.run(
            [*command, *module], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
    finally:
        folder.rmdir()
        _log_of(folder).unlink(missing_ok=True)
    if done.returncode:
        raise RuntimeError(f"the installation on a small disk ended with {done.returncode}: {done.stderr[-2000:]}")
    return [_row(json.loads(done.stdout.splitlines()[-1]))]


def _row(seen: dict[str, Any]) -> FaultRow:
    statuses = {int(status): count for status, count in seen["statuses"].items()}
    errors = sum(count for status, count in statuses.items() if status >= 500 and status != 503)
    row = FaultRow(
        "full disk of PostgreSQL",
        answers=sum(statuses.values()),
        acknowledged=seen["acknowledged"],
        lost=seen["lost"],
        server_errors=errors,
        unavailable=statuses.get(503, 0),
        recovery_seconds=seen["recovery_seconds"],
        notes={"while full": seen["while_full"], "examples": seen["examples"]},
    )
    row.promises = {
        "no acknowledged interaction lost": row.lost == 0,
        "some writes refused": row.unavailable > 0,
        "no 5xx but 503": errors == 0,
        "no other refusal": set(statuses) <= {201, 503},
        "recovered by itself": seen["recovered"],
    }
    return row


def _log_of(folder: Path) -> Path:
    """Beside the folder, where there is room for it."""
    return folder.with_name(f"{folder.name}.log")


def _fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


class _Client:
    """Writes interactions one by one, and remembers what came back."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=60)
        self.statuses: Counter[int] = Counter()
        self.acknowledged: set[str] = set()
        self.examples: list[str] = []

    def write(self) -> int:
        body = {
            "userId": "ann",
            "itemId": "i1",
            "interactionType": "view",
            "metadata": {"text": secrets.token_hex(RANDOM_BYTES)},
        }
        answer = self._http.post(PATH, json=body)
        self.statuses[answer.status_code] += 1
        if answer.status_code == 201:
            self.acknowledged.add(answer.json()["interactionId"])
        elif len(self.examples) < 3:
            self.examples.append(f"{answer.status_code} {answer.text[:200]}")
        return answer.status_code


def _measure(state: Path) -> dict[str, Any]:
    paths, (port,) = PathSettings(state_dir=state), free_ports(1)
    environment = {
        **os.environ,
        **shared_environment(paths),
        "API_PORT": str(port),
        "JWT_SECRET": secrets.token_urlsafe(48),
    }

    def command(*words: str) -> Sequence[str]:
        return [sys.executable, "-m", "api", *words]

    def cli(*words: str) -> str:
        done = subprocess.run(command(*words), cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    log = _log_of(state).open("ab")
    database = _Supervised(command("postgres"), environment, log)
    wait_until("PostgreSQL", lambda: database.lives() and paths.database_url_file.exists(), WAIT_SECONDS)
    cli("migrate")
    cli("create-tenant", "--id", TENANT, "--plan", "unlimited")
    key = cli("create-key", "--tenant", TENANT, "--name", "bench", "--rate-limit", "none")
    url = f"http://127.0.0.1:{port}"
    api = subprocess.Popen(command("serve"), cwd=ROOT, env=environment, stdout=log, stderr=log)
    wait_until("the API", lambda: answers(f"{url}/health/ready"), WAIT_SECONDS)
    with psycopg.connect(DatabaseSettings().resolve(paths)) as connection:
        add_items(connection, TENANT, {"i1": {}})
    client = _Client(url, key)
    for _ in range(50):
        client.write()
    filler = state / "filler"
    _fill(filler)
    before, end = Counter(client.statuses), time.monotonic() + FULL_SECONDS
    while time.monotonic() < end:
        client.write()
        database.lives()
        _fill(filler)
    while_full = client.statuses - before
    filler.unlink()
    cause_gone, recovered = time.monotonic(), False
    while not recovered and time.monotonic() < cause_gone + WAIT_SECONDS:
        database.lives()
        recovered = [client.write() for _ in range(10)] == [201] * 10
    seconds = round(time.monotonic() - cause_gone, 1)
    with psycopg.connect(DatabaseSettings().resolve(paths)) as connection:
        rows = connection.execute("SELECT id::text FROM interactions WHERE tenant_id = %s", [TENANT]).fetchall()
    api.terminate()
    api.wait()
    return {
        "statuses": dict(client.statuses),
        "while_full": dict(while_full),
        "acknowledged": len(client.acknowledged),
        "lost": len(client.acknowledged - {row[0] for row in rows}),
        "recovered": recovered,
        "recovery_seconds": seconds,
        "examples": client.examples,
    }


class _Supervised:
    """A process that is started again where it has ended, as a supervisor does."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Any) -> None:
        self._start = lambda: subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self._process = self._start()

    def lives(self) -> bool:
        if self._process.poll() is None:
            return True
        time.sleep(0.5)
        self._process = self._start()
        return False


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]))))
