"""Become a supervised program, after ending what its previous life left behind.

Servers here fork workers. When a parent is killed outright, its workers live on and hold its port, and the restarted
parent cannot bind. The supervisor gives each program a process group; this module remembers the group in the state
folder, ends its survivors at the next start, and then replaces itself by the program.
"""

import os
import signal
import sys
import time
from pathlib import Path

from configs.settings import PathSettings

PROGRAM_VARIABLE = "RECOMMENDAI_PROGRAM"


def survivors(group: int, identity: str) -> list[int]:
    """Ids of live processes of this process group whose environment carries `identity`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            state, _, process_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended while we looked, or it is not ours
        if int(process_group) == group and state != "Z" and f"{PROGRAM_VARIABLE}={identity}".encode() in environment:
            found.append(int(entry.name))
    return found


def end_survivors(group: int, identity: str, patience_seconds: float = 3.0) -> None:
    """Ask the survivors to stop, and kill those that do not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + patience_seconds
        processes = survivors(group, identity)
        for process in processes:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue
        while processes and time.monotonic() < deadline:
            time.sleep(0.05)
            processes = survivors(group, identity)
        if not processes:
            return


def main(program: str, command: list[str]) -> None:
    """Replace this process by `command`; never returns."""
    state = PathSettings().root
    identity = f"{program}@{state}"
    group_file = state / "run" / f"{program}.group"
    group_file.parent.mkdir(parents=True, exist_ok=True)
    if group_file.exists():
        end_survivors(int(group_file.read_text()), identity)
    group_file.write_text(str(os.getpgrp()))
    os.execvpe(command[0], command, {**os.environ, PROGRAM_VARIABLE: identity})  # noqa: S606 - the point of this module


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
