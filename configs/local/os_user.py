"""The operating system's user that PostgreSQL runs as: this process's user, or a system user if this one is root.

PostgreSQL refuses to run as root. The system user owns nothing but the database.
"""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.parent_death import signal_on_parent_death

SYSTEM_USER = "recommendai"


class BundledPostgresError(RuntimeError):
    """The bundled PostgreSQL cannot be made or started. The message says why and what to do."""


@dataclass(frozen=True)
class OsUser:
    """The user of a child process. Without a name, the child keeps this process's user."""

    name: str | None = None
    uid: int = -1
    gid: int = -1

    def start(
        self, command: Sequence[str | Path], *, on_parent_death: signal.Signals, **options: Any
    ) -> "ChildProcess":
        """Start a child as this user in `/`. Where this process is killed, the child gets `on_parent_death`."""
        if self.name is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        arm = signal_on_parent_death(os.getpid(), on_parent_death)
        # preexec_fn is safe here, since the processes that start children have one thread.
        return subprocess.Popen([str(part) for part in command], cwd="/", preexec_fn=arm, **options)  # noqa: PLW1509

    def run(self, command: Sequence[str | Path]) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, and return its output and exit status. Does not raise where it fails."""
        child = self.start(
            command, on_parent_death=signal.SIGKILL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        output, _ = child.communicate()
        return subprocess.CompletedProcess(child.args, child.returncode, output)

    def can_write(self, folder: Path) -> bool:
        """Whether the user can reach this folder through all of its parents and write in it."""
        return self.run(["/bin/sh", "-c", 'cd "$1" && test -w .', "sh", folder]).returncode == 0

    def own(self, path: Path) -> None:
        """Make the user the owner of this path, which this process's user owns."""
        if self.name is not None:
            os.chown(path, self.uid, self.gid)


ChildProcess = subprocess.Popen[Any]


def postgres_user() -> OsUser:
    """The user for PostgreSQL. For root it is the system user `recommendai`, which is made where it is missing.

    Raises BundledPostgresError with advice where the system user cannot be made.
    """
    if os.geteuid() != 0:
        return OsUser()
    for _ in range(10):
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            _make_system_user()
            time.sleep(0.2)
        else:
            return OsUser(SYSTEM_USER, entry.pw_uid, entry.pw_gid)
    raise BundledPostgresError(
        f"PostgreSQL does not run as root and the system user {SYSTEM_USER!r} could not be made: "
        f"create it, run as another user, or set DATABASE_URL to a server of your own"
    )


def _make_system_user() -> None:
    if useradd := shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        # A failure is not raised: another process may have made the user meanwhile, so the caller looks the user up.
        subprocess.run([useradd, *options, "--shell", "/usr/sbin/nologin", SYSTEM_USER], check=False)
