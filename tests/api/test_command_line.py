"""The command line: values on stdout, messages on stderr, and exit code 1 with a sentence after a failure."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from pwdlib import PasswordHash
from typer.testing import CliRunner

from api.cli import all_commands
from api.database.tables import all_tables
from tests.fixtures.postgres import REPOSITORY

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command in this process: what it does is the same, and nothing is imported anew."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("RECOMMENDAI_STATE_DIR", str(tmp_path))

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(all_commands(), words, catch_exceptions=False)
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    return command


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    environment = {**os.environ, "DATABASE_URL": database_url, "RECOMMENDAI_STATE_DIR": str(tmp_path)}

    def command(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "api", *words],
            cwd=REPOSITORY,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return command


def test_a_password_comes_by_the_environment_and_needs_no_argument(run: Run, database_url: str) -> None:
    run("create-tenant", "--id", "acme")
    chosen = run("create-admin", "--tenant", "acme", "--email", "ada@example.com", PORTAL_PASSWORD="of the environment")
    assert chosen.stdout == "of the environment\n"
    with psycopg.connect(database_url) as connection:
        ((kept,),) = connection.execute("SELECT password_hash FROM users").fetchall()
    assert PasswordHash.recommended().verify("of the environment", kept)
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")  # what RFC 9106 asks of a machine with little memory


def test_a_tenant_from_its_first_command_to_its_last(call: Run, database_url: str) -> None:
    assert call("create-tenant", "--id", "acme", "--plan", "unlimited").stdout == "acme\n"
    again = call("create-tenant", "--id", "acme")
    assert (again.returncode, again.stdout, again.stderr) == (1, "", "The tenant acme exists\n")

    password = call("create-admin", "--tenant", "acme", "--email", "ada@example.com").stdout
    assert len(password.strip()) >= 20
    assert (
        call("set-password", "--email", "ada@example.com", "--password", "a new password").stdout == "a new password\n"
    )
    key = call("create-key", "--tenant", "acme", "--name", "shop", "--scopes", "read", "--rate-limit", "none").stdout
    assert key.startswith("rk_")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT scopes, rate_limit FROM api_keys").fetchall() == [(["read"], 0)]
        trail = connection.execute("SELECT action, actor, ip FROM audit_entries ORDER BY at").fetchall()
        actions = ("tenant.created", "user.created", "password.changed", "key.created")
        assert trail == [(action, "command-line", None) for action in actions]
        connection.execute("INSERT INTO items (tenant_id, id, metadata, version) VALUES ('acme', 'i', '{}', 1)")
        connection.execute(
            "INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, occurred_at) "
            "VALUES ('acme', gen_random_uuid(), 'u', 'i', 'view', now())"
        )

    assert call("list-tenants").stdout.split("\t")[:2] == ["acme", "unlimited"]
    deleted = call("delete-tenant", "--id", "acme")
    assert (deleted.returncode, deleted.stdout) == (0, "")
    assert call("list-tenants").stdout == ""
    with psycopg.connect(database_url) as connection:
        for table in all_tables().sorted_tables:
            rows = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()
            of_the_installation = ("tenants", "adopted_cluster", "installation_secrets")
            assert rows == ((1,) if table.name in of_the_installation else (0,)), table.name
    reused = call("create-tenant", "--id", "acme")
    assert reused.returncode == 1
    assert "never used again" in reused.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["create-tenant", "--id", "Acme"], "id: "),
        (["create-tenant", "--id", "a"], "id: "),
        (["create-tenant", "--id", "acme\n"], "id: "),
        (["create-tenant", "--id", "acme", "--plan", "gold"], "plan: one of free"),
        (["create-key", "--tenant", "nobody", "--name", "n"], "There is no tenant nobody"),
        (["create-key", "--tenant", "nobody", "--name", "n", "--rate-limit", "-5"], "--rate-limit"),
        (["create-admin", "--tenant", "nobody", "--email", "a@b.example"], "There is no tenant nobody"),
        (["set-password", "--email", "nobody@example.com"], "No user logs in as nobody@example.com"),
        (["delete-tenant", "--id", "nobody"], "There is no tenant nobody"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(call: Run, words: list[str], says: str) -> None:
    answer = call(*words)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert says in answer.stderr
    assert "Traceback" not in answer.stderr


def test_without_a_database_every_command_says_what_to_do(run: Run) -> None:
    environment = {"DATABASE_URL": "postgresql://nobody:secret@127.0.0.1:9/none"}
    for words in (["migrate"], ["list-tenants"]):
        answer = run(*words, **environment)
        assert answer.returncode == 1
        assert "Connection refused" in answer.stderr
        assert "Traceback" not in answer.stderr
        assert "secret" not in answer.stderr
    answer = run("serve", DATABASE_URL="mysql://here/there", JWT_SECRET="x" * 32)
    assert (answer.returncode, "postgresql://" in answer.stderr) == (1, True)


def test_serve_without_a_secret_says_what_to_set(run: Run) -> None:
    answer = run("serve", JWT_SECRET="short")
    assert answer.returncode == 1
    assert "JWT_SECRET" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_migrate_says_the_revision_and_can_run_twice(run: Run, empty_database_url: str) -> None:
    for _ in range(2):
        answer = run("migrate", DATABASE_URL=empty_database_url)
        assert (answer.returncode, answer.stdout) == (0, "")
        assert "revision 0" in answer.stderr
