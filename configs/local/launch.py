"""Become a supervised program, after ending what its previous life left behind.

Servers here fork workers. When a parent is killed outright, its workers live on and hold its port, and the restarted
parent cannot bind. Every program carries a mark in its environment, which its children inherit; this module ends the
processes that still carry it, and then replaces itself by the program.
"""

import os
import signal
import sys
import time
from pathlib import Path

from configs.settings import PathSettings

PROGRAM_VARIABLE = "RECOMMENDAI_PROGRAM"


def survivors(identity: str) -> list[int]:
    """Ids of live processes, this one apart, whose environment carries `identity`."""
    mark = f"{PROGRAM_VARIABLE}={identity}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # A process that has ended and waits to be collected has an empty environment.
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended while we looked, or it is not ours
    return found


def end_survivors(identity: str, patience_seconds: float = 3.0) -> None:
    """Ask the survivors to stop, and kill those that do not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + patience_seconds
        processes = survivors(identity)
        for process in processes:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue
        while processes and time.monotonic() < deadline:
            time.sleep(0.05)
            processes = survivors(identity)
        if not processes:
            return


def main(program: str, command: list[str]) -> None:
    """Replace this process by `command`; never returns."""
    identity = f"{program}@{PathSettings().root}"
    end_survivors(identity)
    os.execvpe(command[0], command, {**os.environ, PROGRAM_VARIABLE: identity})  # noqa: S606 - the point of this module


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
