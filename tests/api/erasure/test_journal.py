"""Erasures and revoked keys are on disk, outside the database, before anybody is told that they happened."""

import errno
import json
import multiprocessing
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.backup.journals import given_journals
from api.tenants.service import delete_tenant
from configs.journal import (
    ERASURES,
    REVOCATIONS,
    AnotherJournalError,
    DamagedJournalError,
    Journal,
    JournalSettings,
    read_journal,
)
from tests.api.conftest import OpenClient, Tenants
from tests.fixtures.platform import ROOT, wait_until
from tests.fixtures.portal import Portal

USER = "erasmus-7f3a"


def lines(path: Path) -> list[dict[str, Any]]:
    return list(read_journal(path))


def test_an_erasure_is_in_the_journal_with_tenant_user_and_time_and_no_more(portal: Portal, tmp_path: Path) -> None:
    admin = portal.admin()
    portal.client.post("/api/users", json={"id": USER, "name": "Erasmus", "email": "e@acme.example"}, headers=admin)
    assert portal.client.delete(f"/api/users/{USER}", headers=admin).status_code == 204
    file = tmp_path / "journal" / ERASURES
    ((erased_at,),) = portal.sql("SELECT erased_at FROM tombstones")
    assert lines(file) == [{"tenant": "acme", "user": USER, "erased_at": erased_at.astimezone(UTC).isoformat()}]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_who_cannot_be_noted_is_not_erased(portal: Portal, tmp_path: Path) -> None:
    admin = portal.admin()
    portal.client.post("/api/users", json={"id": USER}, headers=admin)
    (tmp_path / "journal").mkdir(exist_ok=True)
    (tmp_path / "journal" / ERASURES).unlink(missing_ok=True)
    (tmp_path / "journal" / ERASURES).mkdir()  # so that nothing can be written there
    assert portal.client.delete(f"/api/users/{USER}", headers=admin).status_code == 500
    assert portal.client.get(f"/api/users/{USER}", headers=admin).status_code == 200
    assert portal.sql("SELECT count(*) FROM tombstones") == [(0,)]


def test_with_a_full_disk_an_erasure_and_a_revocation_are_refused_until_there_is_room(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = portal.admin()
    portal.client.post("/api/users", json={"id": USER}, headers=admin)
    key = portal.client.post("/api/keys", json={"name": "k"}, headers=admin).json()["id"]
    paths = (f"/api/users/{USER}", f"/api/keys/{key}")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", full)
        for path in paths:
            answer = portal.client.delete(path, headers=admin)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
    for path in paths:
        assert portal.client.delete(path, headers=admin).status_code == 204


def test_ended_secrets_of_keys_are_in_their_journal(portal: Portal, tmp_path: Path) -> None:
    admin = portal.admin()
    key = portal.client.post("/api/keys", json={"name": "k"}, headers=admin).json()["id"]
    (first,) = portal.sql(f"SELECT key_hash FROM api_keys WHERE id = '{key}'")
    assert portal.client.post(f"/api/keys/{key}/rotate", headers=admin).status_code == 200
    (second,) = portal.sql(f"SELECT key_hash FROM api_keys WHERE id = '{key}'")
    assert portal.client.delete(f"/api/keys/{key}", headers=admin).status_code == 204
    ended = lines(tmp_path / "journal" / REVOCATIONS)
    assert [(line["key"], line["hash"]) for line in ended] == [(key, first[0].hex()), (key, second[0].hex())]


def test_the_copy_in_another_folder_follows(open_client: OpenClient, tenants: Tenants, tmp_path: Path) -> None:
    tenants.create("acme")
    tenants.run(lambda session: delete_tenant(session, "acme"))
    other = tmp_path / "elsewhere"
    with open_client(journal=JournalSettings(copy_folder=other)):
        wait_until("the copy", lambda: (other / ERASURES).exists() and len(lines(other / ERASURES)) == 1)
    assert (other / ERASURES).read_bytes() == (tmp_path / "journal" / ERASURES).read_bytes()
    assert stat.S_IMODE((other / ERASURES).stat().st_mode) == 0o600


def test_erasures_that_the_journal_lacks_are_filled_in_once_at_the_start(
    open_client: OpenClient, tenants: Tenants, database_url: str, tmp_path: Path
) -> None:
    tenants.create("acme")
    tenants.create("gone")
    tenants.run(lambda session: delete_tenant(session, "gone"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO tombstones (tenant_id, user_id, erased_at) VALUES ('acme', %s, now())", [USER])
    file = tmp_path / "journal" / ERASURES
    for _ in range(2):
        with open_client():
            wait_until("the journal", lambda: file.exists() and len(lines(file)) == 2)
            time.sleep(1)  # a second start must not add them again
    assert sorted((line["tenant"], line["user"]) for line in lines(file)) == [("acme", USER), ("gone", None)]


def test_an_installation_that_has_erased_nobody_has_an_empty_journal(open_client: OpenClient, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    with open_client(journal=JournalSettings(copy_folder=other)):
        wait_until("the copy", (other / ERASURES).exists)
    for folder in (tmp_path / "journal", other):
        assert lines(given_journals(folder)[ERASURES]) == []


def test_the_command_that_deletes_a_tenant_notes_it(tenants: Tenants, database_url: str, tmp_path: Path) -> None:
    tenants.create("acme")
    environment = {
        "PATH": "/usr/bin:/bin",
        "DATABASE_URL": database_url,
        "RECOMMENDAI_STATE_DIR": str(tmp_path / "state"),
        "JOURNAL_COPY_DIR": str(tmp_path / "elsewhere"),
    }
    command = [sys.executable, "-m", "api", "delete-tenant", "--id", "acme", "--yes"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    for folder in (tmp_path / "state" / "journal", tmp_path / "elsewhere"):
        ((line),) = lines(folder / ERASURES)
        assert (line["tenant"], line["user"]) == ("acme", None)


def test_half_a_line_of_a_crash_is_dropped_and_the_next_line_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / ERASURES, tmp_path / "copy")
    journal.append([{"tenant": "acme", "user": "ann", "erased_at": None}])
    with (tmp_path / ERASURES).open("ab") as file:
        file.write(b'{"tenant": "acme", "us')
    assert [line["user"] for line in journal.entries()] == ["ann"]
    journal.copy()
    journal.append([{"tenant": "acme", "user": "ben", "erased_at": None}])
    journal.copy()
    assert [line["user"] for line in journal.entries()] == ["ann", "ben"]
    assert (tmp_path / "copy" / ERASURES).read_bytes() == (tmp_path / ERASURES).read_bytes()


def test_a_damaged_line_is_reported_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / ERASURES).write_text('{"tenant": "acme"\n{"tenant": "acme"}\n')
    with pytest.raises(DamagedJournalError, match="line 1"):
        lines(tmp_path / ERASURES)


def test_the_copy_of_another_journal_is_not_written_to(tmp_path: Path) -> None:
    other = Journal(tmp_path / "b" / ERASURES, tmp_path / "copy")
    other.append([{"user": "ben"}])
    other.copy()
    before = (tmp_path / "copy" / ERASURES).read_bytes()
    journal = Journal(tmp_path / "a" / ERASURES, tmp_path / "copy")
    journal.append([{"user": "ann"}, {"user": "cy"}])
    with pytest.raises(AnotherJournalError):
        journal.copy()
    assert (tmp_path / "copy" / ERASURES).read_bytes() == before


def _append_many(path: Path, name: str) -> None:
    for number in range(50):
        Journal(path).append([{"user": f"{name}-{number}", "erased_at": datetime.now(UTC).isoformat()}])


def test_processes_that_append_at_once_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / ERASURES
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append_many, args=(path, name)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len({json.dumps(line) for line in lines(path)}) == 100
