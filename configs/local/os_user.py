"""As whom PostgreSQL runs: as ourselves, or, since it refuses root, as a system user with nothing else to its name."""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM_USER = "recommendai"
PR_SET_PDEATHSIG = 1


class ClusterError(RuntimeError):
    """The bundled PostgreSQL cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Account:
    """The user that a child process becomes; without a name it stays what we are."""

    name: str | None = None
    uid: int = -1
    gid: int = -1

    def start(self, command: Sequence[str | Path], *, on_parent_death: signal.Signals, **options: Any) -> "Process":
        """Start a child under this account in `/`, told by that signal should our process be killed."""
        if self.name is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        arm = _signal_on_parent_death(on_parent_death)
        # Safe: the processes that start children here have one thread.
        return subprocess.Popen([str(part) for part in command], cwd="/", preexec_fn=arm, **options)  # noqa: PLW1509

    def run(self, command: Sequence[str | Path]) -> "subprocess.CompletedProcess[str]":
        """Run a child to its end and return it with its output; the caller judges the return code."""
        child = self.start(
            command, on_parent_death=signal.SIGKILL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        output, _ = child.communicate()
        return subprocess.CompletedProcess(child.args, child.returncode, output)

    def can_write(self, folder: Path) -> bool:
        """Whether the account can enter this folder, through all of its parents, and write in it."""
        return self.run(["/bin/sh", "-c", 'cd "$1" && test -w .', "sh", folder]).returncode == 0

    def take(self, path: Path) -> None:
        """Make the account the owner of this path, which is ours."""
        if self.name is not None:
            os.chown(path, self.uid, self.gid)


Process = subprocess.Popen[Any]


def server_account() -> Account:
    """The account for PostgreSQL. As root: the system user `recommendai`, made where it does not exist.

    Raises ClusterError with advice where it cannot be made.
    """
    if os.geteuid() != 0:
        return Account()
    for _ in range(10):
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            _make_system_user()
            time.sleep(0.2)
        else:
            return Account(SYSTEM_USER, entry.pw_uid, entry.pw_gid)
    raise ClusterError(
        f"PostgreSQL does not run as root and the system user {SYSTEM_USER!r} could not be made: "
        f"create it, run as another user, or set DATABASE_URL to a server of your own"
    )


def _make_system_user() -> None:
    if useradd := shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        # A failure is met by the caller's next look: somebody else may have made the user meanwhile.
        subprocess.run([useradd, *options, "--shell", "/usr/sbin/nologin", SYSTEM_USER], check=False)


def _signal_on_parent_death(signum: signal.Signals) -> Any:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def arm() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:  # killed before the line above
            os._exit(1)

    return arm
