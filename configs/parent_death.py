"""Ends a process when its parent is killed, so that nobody's children go on holding a port or a folder (Linux)."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def signal_on_parent_death(parent: int, signum: signal.Signals) -> Callable[[], None]:
    """A function that a child of `parent` calls once: the kernel then sends it `signum` when the parent ends.

    It ends the child with status 1 where the parent is dead already. It does nothing where the system is not Linux.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)

    def arm() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:  # the parent was killed before the line above
            os._exit(1)

    return arm
