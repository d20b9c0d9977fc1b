"""The disk under an API's state folder is full: the state folder of another API process is a file system of a megabyte.

The process has a mount namespace of its own (`unshare`), so that no mount is seen by others or outlives it. That needs
root. What the API writes there is the journal of erasures: an erasure whose line cannot be written must not be done.
"""

import errno
import json
import os
import shlex
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.faults.load import FaultRow, under_load
from tests.benchmarks.reliability.api_processes import api_beside
from tests.benchmarks.running_demo import RunningDemo, Tenant, unique
from tests.fixtures.platform import free_ports

SIZE = "1m"
LARGEST_COPIED = 100_000
"""Bytes of the files that the small file system starts with; journals, secrets and URLs are smaller."""
USERS = 80
"""The last block of the journal has room for some lines, whose erasures are done."""
NAME = "recommendai-small-disk"
"""Of the small file system, as the table of mounts shows it."""


def full_disk(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """Erasures are asked for while the disk is full: refused, not half done, and done when there is room again."""
    if not may_mount():
        return [FaultRow("full disk", notes={"not run": "this user may not mount: no small file system can be had"})]
    admin, prefix = demo.admin(), unique("full")
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    seen: dict[str, Counter[int]] = {"full": Counter(), "again": Counter()}
    with api_beside(demo, port, before=_in_small_disk(demo.paths.root), RATE_LIMIT_JWT="1000000") as api:
        journal = Path(f"/proc/{api.process_id}/root{demo.paths.root}/journal")
        with httpx.Client(base_url=url, headers=admin, timeout=60) as client:
            users = [f"{prefix}-{number}" for number in range(USERS)]
            for user in users:
                client.post("/api/users", json={"id": user, "name": "Ann"}).raise_for_status()

            def trouble() -> float:
                _fill(journal / "filler")
                for user in users:
                    seen["full"][client.delete(f"/api/users/{user}").status_code] += 1
                (journal / "filler").unlink()
                return time.monotonic()

            row = under_load("disk of the API's state folder full", demo, tenant, trouble, url=url)
            there = sum(client.get(f"/api/users/{user}").status_code == 200 for user in users)
            for user in users:
                seen["again"][client.delete(f"/api/users/{user}").status_code] += 1
            lines = [json.loads(line) for line in (journal / "erasures.jsonl").read_text().splitlines()]
    refused = sum(count for status, count in seen["full"].items() if status != 204)
    journalled = {value for line in lines for value in line.values() if value in users}
    row.server_errors += sum(count for status, count in seen["full"].items() if status >= 500 and status != 503)
    row.unavailable += seen["full"][503]
    row.notes["erasures"] = {name: dict(counted) for name, counted in seen.items()}
    row.promises |= {
        "no 5xx but 503": row.server_errors == 0,
        "some erasures refused": refused > 0,
        "no erasure half done": there == refused,
        "erased once there is room": seen["again"][204] == refused,
        "every erasure in the journal": len(journalled) == len(users),
    }
    return [row]


def may_mount() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def _in_small_disk(root: Path) -> list[str]:
    """A command that runs what follows it, with a small file system in the place of the state folder."""
    state = shlex.quote(str(root))
    script = (
        f"set -e; mount -t tmpfs -o size={SIZE} {NAME} /mnt; cd {state}; "
        f"find . -maxdepth 1 -type f -size -{LARGEST_COPIED}c -exec cp -p {{}} /mnt/ ';'; cp -a journal /mnt/; "
        f'mount --bind /mnt {state}; cd {shlex.quote(str(Path.cwd()))}; exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def _fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
