"""The process that owns the bundled PostgreSQL: it starts the server, stays in the foreground and stops the server.

All other processes connect by the URL that this process writes once the server accepts connections.
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
from typing import Any, LiteralString

import psycopg
import structlog
from psycopg import sql

from configs.addresses import PortSettings
from configs.database import MIGRATION_LOCK, VERSION_TABLE, grants, only_read
from configs.files import write_private
from configs.local.os_user import BundledPostgresError, ChildProcess, OsUser, postgres_user
from configs.local.postgres_cluster import DATABASE, OWNER, ROLE, Cluster, binaries, open_cluster
from configs.postgres import PostgresSettings
from configs.settings import PathSettings

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
    # Statements and their details hold ids and e-mail addresses of people, which must not be in logs.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

log = structlog.get_logger(__name__)


def run_server(paths: PathSettings, ports: PortSettings, settings: PostgresSettings) -> int:
    """Run the server until this process gets SIGTERM or SIGINT. Returns 0 then, and 1 where the server ends by itself.

    Raises BundledPostgresError where another process owns this state folder's server, or it cannot be started.
    """
    paths.root.mkdir(parents=True, exist_ok=True)
    with _only_owner(paths.root / "postgres.lock"):
        os_user = postgres_user()
        programs = binaries(os_user)
        if (record := paths.root / "postgres.json").exists():
            await_predecessor(Path(Cluster.load(record).data), os_user)
        cluster = open_cluster(paths.root, os_user, programs, ports.postgres)
        return _Owner(cluster, os_user, programs, settings).serve(paths)


class _Owner:
    """The server as a child of this process."""

    def __init__(self, cluster: Cluster, os_user: OsUser, programs: Path, settings: PostgresSettings) -> None:
        options = SETTINGS | {"port": str(cluster.port), "shared_buffers": settings.shared_buffers}
        options |= dict(pair.split("=", 1) for pair in settings.options.split())
        self._command: list[str | Path] = [programs / "postgres", "-D", cluster.data]
        for name, value in options.items():
            self._command += ["-c", f"{name}={value}"]
        self._cluster = cluster
        self._os_user = os_user
        self._child: ChildProcess | None = None
        self._stopping = False

    def serve(self, paths: PathSettings) -> int:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        self._child = self._os_user.start(self._command, on_parent_death=signal.SIGINT)
        if self._stopping:
            self._child.send_signal(signal.SIGINT)
        if self._await_ready(self._child):
            _ensure_database(self._cluster)
            write_private(paths.database_owner_url_file, self._cluster.owner_url + "\n")
            write_private(paths.database_url_file, self._cluster.url + "\n")  # last: others wait for it
            log.info("postgres is ready", port=self._cluster.port, data=self._cluster.data)
        code = self._child.wait()
        log.info("postgres ended", code=code, requested=self._stopping)
        return 0 if self._stopping and code == 0 else 1

    def _stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None:
            self._child.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: ends sessions and writes a checkpoint

    def _await_ready(self, child: ChildProcess) -> bool:
        """Wait until the server accepts connections or ends. After a crash it first replays its log, for any time."""
        while child.poll() is None and not self._stopping:
            try:
                psycopg.connect(self._cluster.superuser_url, connect_timeout=5).close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.1)
        return False


def _ensure_database(cluster: Cluster) -> None:
    """Make the roles and the database where they are missing, and let the application's role use what is there."""
    with psycopg.connect(cluster.superuser_url, autocommit=True) as connection:
        _ensure_role(connection, OWNER, cluster.password, "CREATEDB")
        _ensure_role(connection, ROLE, cluster.app_password, "NOCREATEDB")
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            create = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(OWNER))
            connection.execute(create)
    # Also here, and not in a migration alone: an installation of one role must answer until it is migrated.
    with psycopg.connect(cluster.owner_url, autocommit=True) as connection:
        # A migration may run already, by the URL of an earlier start, and PostgreSQL refuses concurrent grants.
        connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        for statement in grants(ROLE, connection.info.server_version):
            connection.execute(statement)
        if connection.execute("SELECT to_regclass(%s)", [VERSION_TABLE]).fetchone() != (None,):
            connection.execute(only_read(ROLE, VERSION_TABLE))


def _ensure_role(connection: psycopg.Connection[Any], name: str, password: str, right: LiteralString) -> None:
    role = sql.Identifier(name)
    # Hashed here, since the server logs statements that fail.
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
    statement = sql.SQL(("ALTER" if known else "CREATE") + " ROLE {} LOGIN " + right + " PASSWORD {}")
    connection.execute(statement.format(role, sql.Literal(verifier)))


@contextmanager
def _only_owner(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundledPostgresError(f"another process owns the PostgreSQL of {path.parent}: stop it first") from None
        yield


def await_predecessor(data: Path, os_user: OsUser) -> None:
    """Wait until the server of a killed owner has stopped. Its sessions hold the shared memory of the data folder."""
    deadline = time.monotonic() + PREDECESSOR_SECONDS
    lock_file = data / "postmaster.pid"
    while pids := _processes_in(data, os_user):
        if time.monotonic() > deadline:
            raise BundledPostgresError(f"processes {pids} of an earlier server still work in {data}: stop them first")
        if lock_file.exists() and (postmaster := int(lock_file.read_text().split("\n", 1)[0])) in pids:
            os.kill(postmaster, signal.SIGINT)
        time.sleep(0.2)
    if sys.platform == "linux":
        # No process works in the folder, so that a lock file is stale, even if a new process has its pid.
        lock_file.unlink(missing_ok=True)


def _processes_in(data: Path, os_user: OsUser) -> list[int]:
    """Processes whose working directory is the data folder, as it is for every PostgreSQL process.

    The command runs as the server's user: in a container even root may not see the directory of another's process.
    """
    script = 'for process in /proc/[0-9]*; do [ "$process/cwd" -ef "$1" ] && echo "${process#/proc/}"; done; true'
    return [int(pid) for pid in os_user.run(["/bin/sh", "-c", script, "sh", data]).stdout.split()]
