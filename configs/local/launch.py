"""Starts a supervised program, after ending the processes that its last start left behind.

Servers fork workers. When a parent is killed, its workers live on and hold its port, so that the restarted parent
cannot bind it. Every program has a mark in its environment, which its children inherit. This module ends the processes
that still have the mark, and then replaces itself with the program.
"""

import os
import signal
import sys
import time
from pathlib import Path

from configs.files import keep_state_private
from configs.priority import run_in_background
from configs.settings import PathSettings

PROGRAM_VARIABLE = "RECOMMENDAI_PROGRAM"
BACKGROUND_OPTION = "--background"


def survivors(identity: str) -> list[int]:
    """Ids of the other live processes whose environment has the mark of `identity`."""
    mark = f"{PROGRAM_VARIABLE}={identity}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # A zombie process has an empty environment.
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or belongs to another user
    return found


def end_survivors(identity: str, wait_seconds: float = 3.0) -> None:
    """Send SIGTERM to the survivors, and SIGKILL to those that are left after `wait_seconds`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + wait_seconds
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


def launch(program: str, command: list[str], is_background: bool = False) -> None:
    """Replace this process with `command`, which has low priority in the background. Never returns."""
    keep_state_private()
    if is_background:
        run_in_background()
    identity = f"{program}@{PathSettings().root}"
    end_survivors(identity)
    os.execvpe(command[0], command, {**os.environ, PROGRAM_VARIABLE: identity})  # noqa: S606 - the point of this module


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:2] if argument != BACKGROUND_OPTION] + sys.argv[2:]
    launch(arguments[0], arguments[1:], is_background=sys.argv[1] == BACKGROUND_OPTION)
