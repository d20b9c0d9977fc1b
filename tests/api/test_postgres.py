"""The bundled PostgreSQL: one owner, which survives killed processes, and data that survives with it.

A start costs seconds, so each test tells a story of several.
"""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from configs.local.os_user import postgres_user
from configs.local.postgres_cluster import binaries
from tests.fixtures.folders import open_folder
from tests.fixtures.postgres import REPOSITORY

pytestmark = pytest.mark.service

AS_ROOT = os.geteuid() == 0


class Owner:
    """`python -m api postgres` over one state folder."""

    def __init__(self, state: Path, **environment: str) -> None:
        self.state = state
        self.url_file = state / "database.url"
        self.owner_url_file = state / "database-owner.url"
        self.before = self._written()
        kept = {name: value for name, value in os.environ.items() if name != "POSTGRES_PORT"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "api", "postgres"],
            cwd=REPOSITORY,
            env=kept | {"RECOMMENDAI_STATE_DIR": str(state), "POSTGRES_SHARED_BUFFERS": "16MB"} | environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> str:
        """The URL of the role that owns the tables, once this owner has written it."""
        deadline = time.monotonic() + 90
        while self._written() == self.before:
            assert self.process.poll() is None, self.last_words()
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.02)
        return self.owner_url_file.read_text().strip()

    def app_url(self) -> str:
        """The URL that the API and the pipelines use, after `ready`."""
        return self.url_file.read_text().strip()

    def migrate(self, **environment: str) -> None:
        """Run `python -m api migrate`."""
        kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        command = [sys.executable, "-m", "api", "migrate"]
        kept |= {"RECOMMENDAI_STATE_DIR": str(self.state)} | environment
        done = subprocess.run(command, cwd=REPOSITORY, env=kept, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def refused(self) -> str:
        """What this owner said when it gave up at once."""
        assert self.process.wait(timeout=60) == 1
        return self.last_words()

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(timeout=60)

    def last_words(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def postmaster(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    @property
    def data(self) -> Path:
        return Path(json.loads((self.state / "postgres.json").read_text())["data"])

    def _written(self) -> int:
        return self.url_file.stat().st_mtime_ns if self.url_file.exists() else 0


@pytest.fixture
def state() -> Iterator[Path]:
    folder = open_folder("postgres")
    yield folder / "state"
    shutil.rmtree(folder)


@pytest.fixture
def start(state: Path) -> Iterator[Callable[..., Owner]]:
    owners: list[Owner] = []

    def begin(at: Path = state, **environment: str) -> Owner:
        owners.append(Owner(at, **environment))
        return owners[-1]

    yield begin
    for owner in owners:
        owner.stop()
        if owner.process.stderr:
            owner.process.stderr.close()


def _query(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_it_listens_on_loopback_with_a_password_and_keeps_data_and_port_over_restarts(
    start: Callable[..., Owner], state: Path
) -> None:
    first = start()
    url = first.ready()
    assert "@127.0.0.1:" in url
    for file in ("database.url", "database-owner.url", "postgres.json"):
        assert stat.S_IMODE((state / file).stat().st_mode) == 0o600
    address = url.split("@", 1)[1]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://recommendai:wrong@{address}")
    settings = [_query(url, f"SHOW {name}")[0] for name in ("listen_addresses", "fsync", "synchronous_commit", "jit")]
    assert settings == ["127.0.0.1", "on", "on", "off"]
    assert _query(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")[0] is False

    _query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    session = psycopg.connect(url)  # open while the server is told to stop
    session.execute("SELECT 1")
    started = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - started < 60  # where the session held it up, it would wait for that to end
    session.close()
    second = start()
    assert second.ready() == url
    assert _query(url, "SELECT answer FROM kept") == (42,)
    data = second.data
    assert second.stop(signal.SIGINT) == 0

    # A lock file from before a reboot may name a pid that is anybody's now.
    with subprocess.Popen(["sleep", "60"], user=data.stat().st_uid if AS_ROOT else None) as other:
        (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n0\n0\n\n127.0.0.1\n")
        assert start().ready() == url
        other.kill()


def test_what_was_committed_survives_whoever_is_killed_and_nobody_else_touches_it(start: Callable[..., Owner]) -> None:
    first = start()
    url = first.ready()
    postmaster = first.postmaster()
    _query(url, "CREATE TABLE kept (answer int)")
    _query(url, "INSERT INTO kept VALUES (42)")
    unfinished = psycopg.connect(url)
    unfinished.execute("INSERT INTO kept VALUES (13)")
    first.stop(signal.SIGKILL)
    second = start()  # at once, as a supervisor would
    assert second.ready() == url
    assert not _lives(postmaster)
    assert _query(url, "SELECT array_agg(answer) FROM kept") == ([42],)
    unfinished.close()

    # Another owner beside it is refused.
    assert "another process owns the PostgreSQL" in start().refused()

    # The server itself is killed: its owner ends, and the next one replays the log.
    _query(url, "INSERT INTO kept VALUES (43)")
    unfinished = psycopg.connect(url)
    unfinished.execute("INSERT INTO kept VALUES (13)")
    os.kill(second.postmaster(), signal.SIGKILL)
    assert second.process.wait(timeout=30) == 1
    third = start()
    assert third.ready() == url
    assert _query(url, "SELECT array_agg(answer ORDER BY answer) FROM kept") == ([42, 43],)
    unfinished.close()
    third.stop()

    # Data whose passwords are gone is of no use, but not ours to throw away.
    (third.state / "postgres.json").unlink()
    assert "postgres.json" in start().refused()
    assert (third.state / "postgres" / "PG_VERSION").exists()


def test_an_interrupted_first_start_is_done_again(start: Callable[..., Owner], state: Path) -> None:
    owner = start()
    while not (state / "postgres.json").exists():  # from here on the data is being made
        assert owner.process.poll() is None, owner.last_words()
        time.sleep(0.001)
    owner.stop(signal.SIGKILL)
    assert not (state / "postgres").exists()
    assert _query(start().ready(), "SELECT 1") == (1,)


def test_a_fixed_port_that_is_taken_is_named(start: Callable[..., Owner]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"POSTGRES_PORT={port}" in start(POSTGRES_PORT=str(port)).refused()


def test_where_the_servers_user_cannot_pass_the_data_lies_elsewhere_and_no_folders_mode_changes(
    start: Callable[..., Owner], state: Path
) -> None:
    """Mode 700 is that of /root, and to run as root is to run the server as another user."""
    home = state.parent / "home"
    home.mkdir(mode=0o700)
    project = home / "project"
    project.mkdir(mode=0o750)
    owner = start(project / ".recommendai")
    url = owner.ready()
    data = owner.data
    try:
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in (home, project, data)] == [0o700, 0o750, 0o700]
        assert data.is_relative_to(Path("/var/lib/recommendai") if AS_ROOT else project)
        _query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        owner.stop()
        again = start(project / ".recommendai")
        assert again.ready() == url
        assert _query(url, "SELECT answer FROM kept") == (42,)
        again.stop()
    finally:
        if AS_ROOT:
            owner.stop()
            shutil.rmtree(data)


def test_programs_in_a_folder_that_the_servers_user_cannot_enter_are_copied(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the project, and so its virtual environment, is under /root."""
    os_user = postgres_user()
    installed = binaries(os_user).parents[1]
    private = state.parent / "private"
    for part in (f"{installed.name}/pginstall18", f"{installed.name}.libs"):
        shutil.copytree(installed.parent / part, private / part)
    (private / installed.name / "__init__.py").touch()
    (private / installed.name / "pginstall18" / "bin" / "postgres").chmod(0o700)  # as a strict umask leaves it
    private.chmod(0o700)
    outside = state.parent / "outside"
    monkeypatch.setattr("configs.local.postgres_cluster.OUTSIDE", outside)
    monkeypatch.syspath_prepend(str(private))
    before = os.umask(0o077)
    for _ in range(2):
        programs = binaries(os_user)
        assert programs.is_relative_to(outside if AS_ROOT else private)
        assert "PostgreSQL" in os_user.run([programs / "initdb", "--version"]).stdout
    os.umask(before)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert [path.name for path in outside.glob(".*")] == []


def _refused(url: str, statement: str) -> bool:
    try:
        _query(url, statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def test_the_role_of_the_api_reads_and_writes_rows_and_changes_no_table(start: Callable[..., Owner]) -> None:
    server = start()
    owner_url = server.ready()
    server.migrate()
    url = server.app_url()
    assert _query(url, "SELECT current_user")[0] != _query(owner_url, "SELECT current_user")[0]
    _query(url, "INSERT INTO tenants (id) VALUES ('acme')")
    _query(url, "UPDATE tenants SET plan = 'growth'")
    _query(url, "INSERT INTO users (tenant_id, id) VALUES ('acme', 'ann')")
    _query(url, "INSERT INTO items (tenant_id, id, metadata, version) VALUES ('acme', 'i', '{}', 1)")
    insert = "INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, occurred_at) "
    _query(url, insert + "VALUES ('acme', gen_random_uuid(), 'ann', 'i', 'view', now())")  # and what its triggers write
    assert _query(url, "SELECT history_version FROM users") == (1,)
    _query(url, "DELETE FROM users")
    _query(url, "SELECT adopt_cluster()")
    for statement in (
        "CREATE TABLE public.mine (id int)",
        "DROP TABLE audit_entries",
        "ALTER TABLE audit_entries DISABLE TRIGGER ALL",
        "TRUNCATE audit_entries",
        "DROP TRIGGER history_gone ON interactions",
        "CREATE ROLE other",
        "CREATE DATABASE other",
        "UPDATE alembic_version SET version_num = '0001'",
        "SELECT * FROM pg_authid",
        "COPY tenants TO PROGRAM 'id'",
    ):
        assert _refused(url, statement), statement
    _query(owner_url, "CREATE TABLE later (id int)")
    _query(url, "INSERT INTO later VALUES (1)")  # what a later migration adds is granted by default


def test_an_installation_of_one_role_gets_the_second_and_answers_before_it_is_migrated(
    start: Callable[..., Owner], state: Path
) -> None:
    first = start()
    owner_url = first.ready()
    first.migrate()
    _query(owner_url, "INSERT INTO tenants (id) VALUES ('acme')")
    role = _query(first.app_url(), "SELECT current_user")[0]
    record = json.loads((state / "postgres.json").read_text())
    superuser = f"postgresql://postgres:{record['superuser_password']}@127.0.0.1:{record['port']}/recommendai"
    _query(superuser, f"DROP OWNED BY {role}")
    _query(superuser, f"DROP ROLE {role}")
    assert first.stop() == 0
    del record["app_password"]
    (state / "postgres.json").write_text(json.dumps(record))
    for file in ("database.url", "database-owner.url"):
        (state / file).unlink()
    (state / "database.url").write_text(owner_url + "\n")  # as the version before left it

    second = start()
    assert second.ready() == owner_url
    assert second.app_url() != owner_url
    assert _query(second.app_url(), "SELECT id FROM tenants") == ("acme",)
    assert _refused(second.app_url(), "UPDATE alembic_version SET version_num = '0001'")
    second.migrate()
    assert _query(second.app_url(), "SELECT id FROM tenants") == ("acme",)


def test_two_urls_of_a_server_of_one_s_own_are_settings_and_one_is_enough(
    start: Callable[..., Owner], state: Path
) -> None:
    server = start()
    owner_url = server.ready()
    url = server.app_url()
    for name in ("one", "two"):
        _query(owner_url, f"CREATE DATABASE {name}")
    of = {role: {name: f"{base.rsplit('/', 1)[0]}/{name}" for name in ("one", "two")} for role, base in
          (("owner", owner_url), ("app", url))}  # fmt: skip
    elsewhere = {"RECOMMENDAI_STATE_DIR": str(state.parent / "elsewhere")}
    server.migrate(DATABASE_URL=of["app"]["two"], DATABASE_OWNER_URL=of["owner"]["two"], **elsewhere)
    assert _query(of["app"]["two"], "SELECT count(*) FROM tenants") == (0,)
    assert _refused(of["app"]["two"], "DROP TABLE tenants")
    server.migrate(DATABASE_URL=of["owner"]["one"], **elsewhere)
    assert _query(of["owner"]["one"], "SELECT count(*) FROM tenants") == (0,)
    assert _refused(of["app"]["one"], "SELECT count(*) FROM tenants")
