"""Files in an object store whose requests fail, and that other writers change at the same time."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import psycopg
import pytest
from typer.testing import CliRunner

from api.backup.making import make_backup
from api.backup.restoring import restore_backup
from configs import fetched_files as fetching
from configs.advisory_locks import LockLostError
from configs.buckets import ChangedObjectError
from configs.fetched_files import FetchedFiles
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from configs.state_check import UnusableStateError, require_usable_state
from configs.storage import InvalidKeyError, LocalStorage, Storage, open_storage
from serving.__main__ import app as serving
from tests.fixtures.object_store import ObjectStore, faulty_proxy

pytestmark = pytest.mark.service


@pytest.fixture
def storage(object_store: ObjectStore) -> Storage:
    return open_storage(PathSettings().lake)


def behind(proxy: str, monkeypatch: pytest.MonkeyPatch, **variables: str) -> Storage:
    """The same storage through a proxy."""
    for name, value in {"AWS_ENDPOINT_URL": proxy, **variables}.items():
        monkeypatch.setenv(name, value)
    return open_storage(PathSettings().lake)


def test_what_fails_for_a_while_is_tried_again(
    storage: Storage, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(object_store.endpoint) as (faults, proxy):
        tried = behind(proxy, monkeypatch, STATE_TIMEOUT_SECONDS="2")
        faults.unavailable = 2
        tried.put_text("busy", "written")
        faults.slow, faults.method = 1, "GET"
        assert tried.read_text("busy") == "written"
        # The answer to a manifest is lost: the request that is sent again must not take it for another writer's.
        for number, seconds in enumerate(("2", "0")):
            tried = behind(proxy, monkeypatch, STATE_RETRY_SECONDS=seconds)
            faults.lost_answers, faults.method, faults.path = 1, "PUT", ".manifest"
            with tried.put_folder(f"folder-{number}") as folder:
                (folder / "part").write_text("whole")
            assert faults.lost_answers == 0
        tried = behind(proxy, monkeypatch, STATE_RETRY_SECONDS="10")
        faults.cut_answers, faults.method, faults.path = 1, "GET", ".parts"
        assert tried.local("folder-0/part").read_text() == "whole"
        assert faults.cut_answers == 0
    assert storage.files() == ["busy", "folder-0/part", "folder-1/part"]


def test_what_fails_for_long_raises_within_a_bound_and_names_no_secret(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(object_store.endpoint) as (faults, proxy):
        tried = behind(proxy, monkeypatch, STATE_RETRY_SECONDS="0.5")
        faults.unavailable = 1_000
        for attempt in (lambda: tried.put_text("file", "x"), tried.files, lambda: tried.exists("file")):
            with pytest.raises(OSError, match="the object store failed") as failure:
                attempt()
            assert "a-secret-of-the-tests" not in f"{failure.value!r} {failure.value.__cause__!r}"
        assert len(faults.seen) <= 3 * 10


def test_a_folder_whose_upload_is_cut_is_never_seen_and_its_parts_go(
    storage: Storage, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(object_store.endpoint) as (faults, proxy):
        tried = behind(proxy, monkeypatch, STATE_RETRY_SECONDS="0")
        with pytest.raises(OSError), tried.put_folder("release") as folder:
            for name in ("a", "b"):
                (folder / name).write_text("half of it")
            tried.put_text("other", "x")
            faults.unavailable = 1_000
    assert storage.files() == ["other"] and not storage.exists("release")
    with storage.put_folder("release") as folder:
        (folder / "a").write_text("whole")
    assert storage.files() == ["other", "release/a"]


def test_parts_that_a_killed_writer_left_are_deleted_and_those_in_use_are_not(
    storage: Storage, object_store: ObjectStore
) -> None:
    with storage.put_folder("tenant=a/release") as folder:
        (folder / "part").write_text("in use")
    object_store.bucket.put(".parts/lake/tenant=a/release/.0123/part", b"of people")
    object_store.bucket.put(".parts/lake/tenant=a/other/.4567/deep/part", b"of people")
    assert storage.files() == ["tenant=a/release/part"] and not storage.exists("tenant=a/other")
    storage.under("tenant=a").remove_unfinished()
    assert storage.read_text("tenant=a/release/part") == "in use"
    assert len(object_store.object_keys()) == 2  # the manifest and the part


def test_a_deleted_tenant_leaves_no_object_and_no_copy(storage: Storage, object_store: ObjectStore) -> None:
    for tenant in ("tenant=a", "tenant=ab"):
        storage.put_text(f"{tenant}/days/1", "of people")
        with storage.put_folder(f"{tenant}/snapshot") as folder:
            (folder / "part").write_text("of people")
        with storage.under(tenant).scratch_folder():
            assert storage.local(f"{tenant}/snapshot/part").read_text() == "of people"
    object_store.bucket.put(".parts/lake/tenant=a/left/.0123/part", b"of people")
    storage.delete("tenant=a")
    assert not storage.exists("tenant=a")
    assert storage.folders() == ["tenant=ab"]
    assert all("tenant=ab/" in key for key in object_store.object_keys())
    assert all("tenant=a" not in path.parts for path in object_store.state.rglob("*"))


def test_nobody_sees_what_is_being_deleted(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1", "2"):
        storage.put_text(f"tenant=a/{name}", "x")
    with storage.put_folder("tenant=a/snapshot") as folder:
        (folder / "part").write_text("x")
    delete, seen = obstore.delete, []

    def looking(store: object, keys: list[str]) -> None:
        seen.append((storage.files(), storage.folders(), storage.exists("tenant=a"), storage.exists("tenant=a/1")))
        with pytest.raises(FileNotFoundError):
            storage.read_text("tenant=a/1")
        delete(store, keys)

    monkeypatch.setattr("configs.buckets.obstore.delete", looking)
    storage.delete("tenant=a")
    assert set(map(str, seen)) == {str(([], [], True, False))}
    monkeypatch.undo()


def test_replacing_an_object_that_has_changed_since_raises(object_store: ObjectStore) -> None:
    bucket = object_store.bucket
    bucket.put("manifest", b"1", new=True)
    _, first = bucket.read("manifest")
    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(bucket.put, "manifest", content, replaces=first) for content in (b"2", b"3")]
        failures = [outcome.exception() for outcome in outcomes]
    assert sorted(type(each) for each in failures if each) == [ChangedObjectError]
    with pytest.raises(FileExistsError):
        bucket.put("manifest", b"4", new=True)


def test_a_program_that_has_lost_its_lock_stops_writing(storage: Storage) -> None:
    with pytest.raises(LockLostError), storage.lock("tenant=a"):
        storage.put_text("tenant=a/file", "while it was held")
        end_lock_connections()
        storage.put_text("tenant=a/file", "after it was lost")
    assert storage.read_text("tenant=a/file") == "while it was held"
    with pytest.raises(LockLostError), storage.lock("tenant=a"):
        end_lock_connections()


def end_lock_connections() -> None:
    with psycopg.connect(DatabaseSettings().resolve(PathSettings()), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'recommendai-lock'"
        )


def test_copies_on_disk_are_bounded_follow_the_store_and_go_with_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    copies = FetchedFiles(tmp_path, 10, lambda: now[0])

    def copy(key: str, etag: str, size: int) -> Path:
        return copies.get(key, etag, size, lambda path: path.write_text("x" * size) and None)

    first = copy("first", "1", 6)
    with pytest.raises(OSError, match="STATE_FETCHED_BYTES"):
        copy("second", "1", 6)
    assert first.exists()
    now[0] += fetching.IN_USE_SECONDS
    copy("second", "1", 6)
    assert not first.exists()
    assert copy("second", "2", 3).read_text() == "xxx"
    copies.close()
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_replaced_is_fetched_anew(storage: Storage, object_store: ObjectStore) -> None:
    storage.put_text("days/1", "first")
    assert storage.local("days/1").read_text() == "first"
    object_store.bucket.put("lake/days/1", b"second")
    assert storage.local("days/1").read_text() == "second"
    object_store.bucket.delete(["lake/days/1"])
    assert not storage.local("days/1").exists()


def test_large_files_and_odd_names_come_back_as_they_were(storage: Storage, tmp_path: Path) -> None:
    content = os.urandom(40 * 2**20)
    with storage.put("tenant=é/day 1%/+&.parquet") as file:
        file.write_bytes(content)
    assert storage.files() == ["tenant=é/day 1%/+&.parquet"]
    assert storage.local(storage.files()[0]).read_bytes() == content


def test_a_forked_process_gets_an_error_and_does_not_hang(storage: Storage) -> None:
    storage.put_text("file", "x")
    if (child := os.fork()) == 0:
        try:
            open_storage(PathSettings().lake)
        except RuntimeError:
            os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_only_lake_features_and_releases_leave_this_machine(object_store: ObjectStore, tmp_path: Path) -> None:
    paths = PathSettings()
    for place in (paths.lake, paths.features / "tenant=a", paths.bentoml):
        assert not isinstance(open_storage(place), LocalStorage)
    for place in (paths.rejects, paths.exports, paths.dagster / "values", tmp_path, paths.root):
        assert isinstance(open_storage(place), LocalStorage)
    with pytest.raises(InvalidKeyError):
        open_storage(paths.lake).put_text("../x", "x")


def test_a_store_that_would_not_keep_its_promises_is_refused_at_start(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_usable_state(writes=True)
    assert object_store.object_keys() == []
    bucket_put = type(object_store.bucket).put
    with monkeypatch.context() as old_store:
        old_store.setattr(
            "configs.buckets.Bucket.put", lambda self, key, content, **modes: bucket_put(self, key, content)
        )
        with pytest.raises(UnusableStateError, match="ignores If-None-Match"):
            require_usable_state(writes=True)
    monkeypatch.setenv("STATE_URL", "s3://nobody-made-this/prefix")
    with pytest.raises(UnusableStateError, match="cannot be used"):
        require_usable_state(writes=True)
    served = CliRunner().invoke(serving, ["serve"])
    assert served.exit_code == 1 and "cannot be used" in str(served.exception or served.output)


def test_what_works_on_files_of_this_machine_alone_refuses(object_store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(UnusableStateError, match="a backup does not work with STATE_URL"):
        make_backup(PathSettings(), DatabaseSettings().resolve(PathSettings()), tmp_path / "backup")
    with pytest.raises(UnusableStateError, match="a restore does not work with STATE_URL"):
        restore_backup(PathSettings(), DatabaseSettings(), tmp_path / "backup", None, without_journal=True)
    assert not (tmp_path / "backup").exists()
