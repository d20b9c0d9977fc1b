"""A backup of a running installation, and what its restore brings back, does again, and leaves out."""

import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from api.backup import making, restoring
from api.backup.manifest import BrokenBackupError, verified_manifest
from api.backup.programs import run_program
from api.tenants.service import delete_tenant
from configs.journal import ERASURES, read_journal
from configs.local.demo import DemoSettings
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from pipelines.instance import open_instance
from pipelines.partitions import TENANTS
from tests.api.backup.installation import (
    ADMIN,
    DELETED,
    ERASED,
    LATER,
    PASSWORD,
    RELEASE,
    SECRET,
    STAYS,
    TENANT,
    Place,
    bundled,
    command,
    installation,
    refusal,
    settings_of,
)
from tests.api.conftest import Tenants
from tests.fixtures.folders import open_folder
from tests.fixtures.live import api_process
from tests.fixtures.platform import ROOT, wait_until
from tests.fixtures.search import files_with, tables_with
from tests.fixtures.settings import all_aliases
from training.tracking.mlflow_store import Tracking

pytestmark = pytest.mark.service


@dataclass
class Backup:
    """A backup, the journals of what happened since, and what its clients had."""

    folder: Path
    journals: Path
    kept_key: dict[str, str]
    revoked_key: dict[str, str]
    replaced_key: dict[str, str]


@pytest.fixture(scope="module")
def backup() -> Iterator[Backup]:
    """A backup that was made while the API ran; afterwards a user and a tenant were erased and two keys ended."""
    folder = open_folder("backup")
    with pytest.MonkeyPatch.context() as patch, installation(patch) as place:
        tenants = Tenants(place.url)
        kept, revoked, replaced = tenants.key(TENANT), tenants.key(TENANT), tenants.key(TENANT)
        with (
            api_process(place.url, place.paths.root, JWT_SECRET=SECRET) as api,
            httpx.Client(base_url=api.url, timeout=60) as http,
        ):
            token = http.post("/api/auth/login", json={"email": ADMIN, "password": PASSWORD}).json()["token"]
            admin = {"Authorization": f"Bearer {token}"}

            def exported_meanwhile(program: str, url: str, *arguments: str) -> str:
                if program == "pg_dump":
                    place.interact(LATER)
                    place.export()
                return run_program(program, url, *arguments)

            patch.setattr(making, "run_program", exported_meanwhile)
            patch.setenv("STRIPE_API_KEY", "sk_test_kept")
            making.make_backup(place.paths, place.owner_url, folder / "backup")
            assert http.delete(f"/api/users/{ERASED}", headers=admin).status_code == 204
            ids = {row[0]: str(row[1]) for row in place.sql("SELECT prefix, id FROM api_keys")}
            of = lambda key: ids[key["X-API-Key"][:9]]  # noqa: E731
            assert http.delete(f"/api/keys/{of(revoked)}", headers=admin).status_code == 204
            assert http.post(f"/api/keys/{of(replaced)}/rotate", headers=admin).status_code == 200
        tenants.run(lambda session: delete_tenant(session, DELETED))
        with api_process(place.url, place.paths.root, JWT_SECRET=SECRET):  # fills in what was erased past the journal
            file = place.paths.journal / ERASURES
            wait_until("the journal", lambda: len(list(read_journal(file))) == 2)
        shutil.copytree(place.paths.journal, folder / "journal")
    yield Backup(folder / "backup", folder / "journal", kept, revoked, replaced)
    shutil.rmtree(folder)


@pytest.fixture
def target() -> Iterator[Path]:
    """A place for a state folder."""
    parent = open_folder("backup")
    yield parent / "state"
    shutil.rmtree(parent)


def restore(backup: Backup, target: Path, *options: str, **environment: str) -> str:
    journal = () if options else ("--journal", str(backup.journals))
    done = command("restore", "--from", str(backup.folder), *journal, *options, state=target, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def restored(backup: Backup) -> Iterator[tuple[Place, str]]:
    """The installation that the backup was restored to, and the report."""
    parent = open_folder("backup")
    report = restore(backup, parent / "state")
    assert [path.name for path in parent.iterdir()] == ["state"]
    with bundled(parent / "state") as place:
        yield place, report
    shutil.rmtree(parent)


def test_nobody_who_was_erased_after_the_backup_comes_back(restored: tuple[Place, str]) -> None:
    place, report = restored
    assert "1 users erased again and the tenants gone" in report
    assert tables_with(place.url, ERASED) == {"tombstones"}
    children = [
        path for path in place.paths.root.iterdir() if path.is_dir() and path.name not in {"journal", "postgres"}
    ]
    assert {child for child in children if files_with(child, ERASED)} == set()
    assert {child.name for child in children if files_with(child, STAYS)} == {"lake", "rejects"}
    assert place.sql("SELECT deleted_at IS NOT NULL FROM tenants WHERE id = %s", DELETED) == [(True,)]
    assert not (place.paths.bentoml / "models" / f"release-{DELETED}").exists()
    assert ERASED in (place.paths.journal / ERASURES).read_text()  # so that the next restore knows it


def test_rows_that_were_exported_between_the_copies_of_lake_and_database_are_there_once(
    restored: tuple[Place, str],
) -> None:
    place, _ = restored
    assert place.in_lake() == [STAYS, LATER]
    place.interact("dan-11d0")
    place.export()
    assert place.in_lake() == [STAYS, LATER, "dan-11d0"]


def test_sessions_and_ended_keys_open_nothing(restored: tuple[Place, str], backup: Backup) -> None:
    place, report = restored
    assert "2 revoked again" in report
    assert place.sql("SELECT count(*) FROM sessions") == [(0,)]
    with (
        api_process(place.url, place.paths.root, JWT_SECRET=SECRET) as api,
        httpx.Client(base_url=api.url, timeout=60) as http,
    ):
        found = [
            http.get("/api/items", headers=key).status_code
            for key in (backup.kept_key, backup.revoked_key, backup.replaced_key)
        ]
        assert found[1:] == [401, 401]
        assert found[0] != 401
        assert http.post("/api/auth/login", json={"email": ADMIN, "password": PASSWORD}).status_code == 200


def test_subscriptions_wait_to_be_read_from_stripe_and_usage_is_said_to_be_forgiven(
    restored: tuple[Place, str],
) -> None:
    place, report = restored
    waiting = "SELECT payload ->> 'customer' FROM stripe_events WHERE handled_at IS NULL"
    assert place.sql(waiting) == [("cus_1",)]
    assert "1 are read anew from Stripe" in report
    assert "are forgiven" in report


def test_releases_experiments_history_and_secrets_are_there(
    restored: tuple[Place, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = restored
    paths = place.paths
    release = paths.bentoml / "models" / f"release-{TENANT}"
    assert ((release / "latest").read_text(), (release / RELEASE / "model.json").read_text()) == (RELEASE, "{}")
    tracking = Tracking(f"sqlite:///{paths.mlflow / 'mlflow.db'}", paths.mlflow / "artifacts")
    (run,) = tracking.client.search_runs([tracking.experiment_id(TENANT)])
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(paths.mlflow)
    assert Path(tracking.client.download_artifacts(run.info.run_id, "note.txt")).read_text() == "measured"
    monkeypatch.setenv("DAGSTER_HOME", "")
    with open_instance(paths) as instance:
        assert instance.get_dynamic_partitions(TENANTS) == [TENANT]
    assert paths.serving_secret_file.read_text()
    kept = json.loads((paths.root / "restored-environment.json").read_text())
    assert kept["STRIPE_API_KEY"] == "sk_test_kept"
    assert not paths.features.exists() or not list(paths.features.rglob("interactions.parquet"))


def test_tenants_whose_names_end_as_a_databases_files_do_are_copied(tmp_path: Path) -> None:
    from api.backup.contents import copy_lake, copy_rest

    paths = PathSettings(state_dir=tmp_path / "state")
    for name in ("daily-journal", "great-wal"):
        tenant = paths.lake / f"tenant={name}" / "interactions"
        tenant.mkdir(parents=True)
        (tenant / "rows.parquet").touch()
        (paths.dagster / "values" / name).mkdir(parents=True)
        (paths.dagster / "values" / name / "value.json").touch()
    (paths.dagster / "runs.db-wal").touch()
    copy_lake(paths, tmp_path / "copy")
    copy_rest(paths, tmp_path / "copy")
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert copied == {
        *(f"lake/tenant={name}/interactions/rows.parquet" for name in ("daily-journal", "great-wal")),
        *(f"dagster/values/{name}/value.json" for name in ("daily-journal", "great-wal")),
    }


def test_a_backup_is_private_and_holds_no_running_state(backup: Backup) -> None:
    for path in (backup.folder, *backup.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    names = {path.name for path in (backup.folder / "state").iterdir()}
    assert names.isdisjoint({"postgres", "postgres.json", "database.url", "logs", "models"})


def test_without_a_journal_it_refuses_unless_told(backup: Backup, target: Path) -> None:
    assert "--without-journal" in refusal("restore", "--from", str(backup.folder), state=target)
    assert not target.exists()
    assert "NO JOURNAL" in restore(backup, target, "--without-journal")


def test_the_copied_journal_of_the_settings_is_used(backup: Backup, target: Path) -> None:
    done = command("restore", "--from", str(backup.folder), state=target, JOURNAL_COPY_DIR=str(backup.journals))
    assert done.returncode == 0, done.stderr
    assert "1 users erased again" in done.stdout


def test_a_target_that_is_not_empty_is_refused(backup: Backup, target: Path) -> None:
    target.mkdir()
    (target / "something").touch()
    refused = command(
        "restore", "--from", str(backup.folder), "--journal", str(backup.journals / ERASURES), state=target
    )
    assert refused.returncode == 1
    assert "is not empty" in refused.stderr
    assert [path.name for path in target.iterdir()] == ["something"]


@pytest.mark.parametrize("damage", ["byte", "missing", "another", "manifest"])
def test_a_damaged_backup_is_not_restored(backup: Backup, target: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(backup.folder, copy)
    dump = copy / "database.dump"
    if damage == "byte":
        content = bytearray(dump.read_bytes())
        content[len(content) // 2] ^= 1
        dump.write_bytes(content)
    elif damage == "missing":
        dump.unlink()
    elif damage == "another":
        (copy / "state" / "added").touch()
    else:
        manifest = copy / "manifest.json"
        manifest.write_text(manifest.read_text().replace("database.dump", "database.dumb"))
    with pytest.raises(BrokenBackupError):
        verified_manifest(copy)
    assert refusal("restore", "--from", str(copy), "--journal", str(backup.journals), state=target)
    assert not target.exists()


@contextmanager
def held(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_killed_backup_leaves_nothing_half_done_and_the_next_succeeds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with installation(monkeypatch) as place:
        target = tmp_path / "backups" / "monday"
        arguments = [sys.executable, "-m", "api", "backup", "--to", str(target)]
        with held(place.paths.lake / f"tenant={TENANT}" / ".lock"):  # the backup waits here
            process = subprocess.Popen(arguments, cwd=ROOT, env=settings_of(place.paths.root, {}))
            wait_until("a copied release", lambda: bool(list(tmp_path.rglob("model.json"))))
            process.kill()
            process.wait()
        assert not target.exists()
        assert len(list(target.parent.glob(".tmp-*"))) == 1
        done = command("backup", "--to", str(target), state=place.paths.root)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in target.parent.iterdir()] == ["monday"]
        verified_manifest(target)
        assert "is not empty" in refusal("backup", "--to", str(target), state=place.paths.root)
        inside = str(place.paths.root / "backup")
        assert "lies in the state folder" in refusal("backup", "--to", inside, state=place.paths.root)


def test_a_killed_restore_leaves_nothing_half_done_and_the_next_succeeds(backup: Backup, target: Path) -> None:
    arguments = ["restore", "--from", str(backup.folder), "--journal", str(backup.journals)]
    process = subprocess.Popen([sys.executable, "-m", "api", *arguments], cwd=ROOT, env=settings_of(target, {}))
    wait_until("the database of the restore", lambda: bool(list(target.parent.glob(".tmp-*/database.url"))))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    assert "1 users erased again" in restore(backup, target)
    assert [path.name for path in target.parent.iterdir()] == ["state"]
    wide = [path for path in target.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert [path for path in wide if not path.is_relative_to(target / "postgres")] == []


def test_a_database_of_ones_own_is_restored_where_it_is_empty(
    backup: Backup, target: Path, empty_database_url: str
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE something (id int)")
    options = ("--from", str(backup.folder), "--journal", str(backup.journals))
    assert "is not empty" in refusal("restore", *options, state=target, DATABASE_URL=empty_database_url)
    # What a killed restore into this database left.
    left = target.parent / f".tmp-{target.name}-0"
    left.mkdir()
    with psycopg.connect(empty_database_url) as connection:
        place = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
    (left / "database.restoring").write_text(place)
    done = command("restore", *options, state=target, DATABASE_URL=empty_database_url)
    assert done.returncode == 0, done.stderr
    assert tables_with(empty_database_url, ERASED) == {"tombstones"}
    assert "something" not in tables_of(empty_database_url)
    assert not (target / "postgres.json").exists()
    assert [path.name for path in target.parent.iterdir()] == ["state"]


@pytest.mark.parametrize(("moment", "is_killed"), [("_follow_database", False), ("publish_folder", True)])
def test_a_restore_into_a_database_of_ones_own_that_broke_off_late_is_begun_anew(
    backup: Backup, target: Path, empty_database_url: str, moment: str, is_killed: bool
) -> None:
    """It fails, or is killed, once the database is filled and before the state folder has its name."""

    def break_off(*_: object) -> str:
        raise OSError("No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JOURNAL_COPY_DIR", raising=False)
        patch.setenv("DATABASE_URL", empty_database_url)
        patch.setattr(restoring, moment, break_off)
        if is_killed:
            patch.setattr(restoring, "discard_failed", lambda work: None)
        with pytest.raises(OSError, match="No space left"):
            restoring.restore_backup(
                PathSettings(state_dir=target),
                DatabaseSettings(),
                backup.folder,
                backup.journals,
                without_journal=False,
            )
    assert "users" in tables_of(empty_database_url)
    assert "1 users erased again" in restore_into(backup, target, empty_database_url)
    assert [path.name for path in target.parent.iterdir()] == ["state"]
    assert not (target / "database.restoring").exists()
    options = ("--from", str(backup.folder), "--journal", str(backup.journals))
    other = target.with_name("other")
    assert "is not empty" in refusal("restore", *options, state=other, DATABASE_URL=empty_database_url)


def restore_into(backup: Backup, target: Path, url: str) -> str:
    options = ("--from", str(backup.folder), "--journal", str(backup.journals))
    done = command("restore", *options, state=target, DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_attempt_deletes_what_attempts_at_the_same_place_left_alone(tmp_path: Path) -> None:
    for name in (".tmp-state-0a1b", ".tmp-state-old-0a1b", ".tmp-[s]tate-0a1b", "state-old"):
        (tmp_path / name).mkdir()
    found = {place: [path.name for path in making.work_folders(tmp_path / place)] for place in ("state", "[s]tate")}
    assert found == {"state": [".tmp-state-0a1b"], "[s]tate": [".tmp-[s]tate-0a1b"]}


def test_no_password_is_in_an_argument_list(
    backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    said = tmp_path / "said"
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\necho "$@" > {said}\ntest -n "$PGPASSWORD"\n')
    program.chmod(0o755)
    monkeypatch.setenv("POSTGRES_PROGRAMS", str(tmp_path))
    run_program("pg_dump", database_url, "--format=custom")
    assert said.read_text() == "--no-password --format=custom\n"


def test_a_journal_that_is_older_than_the_backup_is_refused(tmp_path: Path) -> None:
    from api.backup.journals import require_continuation
    from api.backup.making import BackupError

    before, after = tmp_path / "before", tmp_path / "after"
    before.write_text('{"user": "ann"}\n{"user": "ben"}\n')
    after.write_text('{"user": "ben"}\n{"user": "ann"}\n{"user": "cy"}\n')
    require_continuation(before, after)
    after.write_text('{"user": "ann"}\n')
    with pytest.raises(BackupError, match="older than the backup"):
        require_continuation(before, after)


def test_the_journal_is_replayed_in_a_database_that_was_restored_by_other_means(
    backup: Backup, target: Path, empty_database_url: str
) -> None:
    name = empty_database_url.rpartition("/")[2]
    run_program("pg_restore", empty_database_url, f"--dbname={name}", str(backup.folder / "database.dump"))
    assert {"users", "interactions"} <= tables_with(empty_database_url, ERASED)
    shutil.copytree(backup.journals, target / "journal")
    for erased in (1, 0):
        done = command("replay-journal", state=target, DATABASE_URL=empty_database_url)
        assert done.returncode == 0, done.stderr
        assert f"{erased} users erased again" in done.stdout
    assert tables_with(empty_database_url, ERASED) == {"tombstones"}


def test_migrate_repeats_erasures_in_a_database_that_was_restored_in_another_cluster(
    backup: Backup, target: Path, empty_database_url: str, database_url: str
) -> None:
    assert command("migrate", state=target, DATABASE_URL=database_url).returncode == 0  # where the database was
    shutil.copytree(backup.journals, target / "journal", dirs_exist_ok=True)
    name = empty_database_url.rpartition("/")[2]
    run_program("pg_restore", empty_database_url, f"--dbname={name}", str(backup.folder / "database.dump"))
    done = command("migrate", state=target, DATABASE_URL=empty_database_url)
    assert done.returncode == 0, done.stderr
    assert "1 users and 1 tenants erased again, 2 keys revoked again" in done.stderr
    assert tables_with(empty_database_url, ERASED) == {"tombstones"}
    again = command("migrate", state=target, DATABASE_URL=empty_database_url)
    assert (again.returncode, "another cluster" in again.stderr) == (0, False)


def tables_of(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in found}


def test_every_setting_of_an_installation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_demo = {field.alias for field in DemoSettings.model_fields.values()}
    names = all_aliases() - of_the_demo - {"RECOMMENDAI_STATE_DIR"}
    for name in names:
        monkeypatch.setenv(name, "set")
    assert making.kept_environment() == dict.fromkeys(names, "set")
