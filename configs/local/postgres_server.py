"""The process that owns the bundled PostgreSQL: it starts it, stays in the foreground and takes it down with itself.

Everybody else connects by the URL that this process writes once the server answers.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psycopg
import structlog
from psycopg import sql

from configs.files import write_private
from configs.local.os_user import Account, ClusterError, Process, server_account
from configs.local.postgres_cluster import DATABASE, ROLE, Cluster, binaries, open_cluster
from configs.settings import PathSettings, PortSettings, PostgresSettings

PREDECESSOR_SECONDS = 60.0
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "jit": "off",  # compiling costs more than it saves on queries of milliseconds
    "io_method": "sync",  # no worker processes beside the backends
    "max_parallel_workers_per_gather": "0",
    "max_connections": "100",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements and their details hold ids and addresses of people, which no log may.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

log = structlog.get_logger(__name__)


def run(paths: PathSettings, ports: PortSettings, settings: PostgresSettings) -> int:
    """Own the server until SIGTERM or SIGINT (0) or until it ends by itself (1).

    Raises ClusterError where another process owns this state folder's server or the server cannot be had.
    """
    paths.root.mkdir(parents=True, exist_ok=True)
    with _only_owner(paths.root / "postgres.lock"):
        account = server_account()
        programs = binaries(account)
        if (record := paths.root / "postgres.json").exists():
            _await_predecessor(Path(Cluster.load(record).data), account)
        cluster = open_cluster(paths.root, account, programs, ports.postgres)
        return _Owner(cluster, account, programs, settings).serve(paths.database_url_file)


class _Owner:
    """The server as a child of this process."""

    def __init__(self, cluster: Cluster, account: Account, programs: Path, settings: PostgresSettings) -> None:
        options = SETTINGS | {"port": str(cluster.port), "shared_buffers": settings.shared_buffers}
        options |= dict(pair.split("=", 1) for pair in settings.options.split())
        self._command: list[str | Path] = [programs / "postgres", "-D", cluster.data]
        for name, value in options.items():
            self._command += ["-c", f"{name}={value}"]
        self._cluster = cluster
        self._account = account
        self._child: Process | None = None
        self._stopping = False

    def serve(self, url_file: Path) -> int:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        self._child = self._account.start(self._command, on_parent_death=signal.SIGINT)
        if self._stopping:
            self._child.send_signal(signal.SIGINT)
        if self._await_ready(self._child):
            _ensure_database(self._cluster)
            write_private(url_file, self._cluster.url + "\n")
            log.info("postgres is ready", port=self._cluster.port, data=self._cluster.data)
        code = self._child.wait()
        log.info("postgres ended", code=code, asked=self._stopping)
        return 0 if self._stopping and code == 0 else 1

    def _stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None:
            self._child.send_signal(signal.SIGINT)  # fast: ends sessions, writes a checkpoint

    def _await_ready(self, child: Process) -> bool:
        """Wait as long as the child lives: after a crash it first replays its log, however long that takes."""
        while child.poll() is None and not self._stopping:
            try:
                psycopg.connect(self._cluster.superuser_url, connect_timeout=5).close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.1)
        return False


def _ensure_database(cluster: Cluster) -> None:
    role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
    with psycopg.connect(cluster.superuser_url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
            # Hashed here: a statement that fails is written to the server's log.
            verifier = connection.pgconn.encrypt_password(cluster.password.encode(), ROLE.encode(), b"scram-sha-256")
            create = sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}")
            connection.execute(create.format(role, sql.Literal(verifier.decode())))
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))


@contextmanager
def _only_owner(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(f"another process owns the PostgreSQL of {path.parent}: stop it first") from None
        yield


def _await_predecessor(data: Path, account: Account) -> None:
    """Let the server of an owner that was killed come down first; its sessions hold the data's shared memory."""
    deadline = time.monotonic() + PREDECESSOR_SECONDS
    lock_file = data / "postmaster.pid"
    while pids := _processes_in(data, account):
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {pids} of an earlier server still work in {data}: stop them first")
        if lock_file.exists() and (postmaster := int(lock_file.read_text().split("\n", 1)[0])) in pids:
            os.kill(postmaster, signal.SIGINT)
        time.sleep(0.2)
    if sys.platform == "linux":
        # Nobody works in the folder, so a lock file there is stale, though its pid may by now be some other process's.
        lock_file.unlink(missing_ok=True)


def _processes_in(data: Path, account: Account) -> list[int]:
    """Processes whose working folder is the data folder, as that of every PostgreSQL process is.

    The account looks itself: in a container even root may not see where another user's process works.
    """
    script = 'for process in /proc/[0-9]*; do [ "$process/cwd" -ef "$1" ] && echo "${process#/proc/}"; done; true'
    return [int(pid) for pid in account.run(["/bin/sh", "-c", script, "sh", data]).stdout.split()]
