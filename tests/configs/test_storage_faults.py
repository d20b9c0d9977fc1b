"""Storage while others write, delete and die, and where the file system refuses."""

import ast
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.backup import contents
from configs.files import kept_secret
from configs.settings import PathSettings
from configs.storage import MAX_PART, InvalidKeyError, LocalStorage, open_storage
from tests.fixtures.folders import waits_for_folder_lock
from tests.fixtures.platform import wait_until

_COMPUTATION = """
import sys, time
from pathlib import Path
from configs.storage import open_storage

with open_storage(Path(sys.argv[1])).scratch_folder() as folder:
    (folder / "rows").write_text("what people did")
    print(folder.name, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "kept")


@pytest.mark.parametrize("key", ["", "a/", "/a", "a//b", "../a", "a/../b", ".lock", "a\0b", "\ud800", "ä" * MAX_PART])
def test_what_is_no_key_of_a_file_is_neither_put_nor_deleted(storage: LocalStorage, key: str) -> None:
    storage.put_text("file", "kept")
    for attempt in (
        storage.delete,
        lambda key: storage.put_text(key, "x"),
        lambda key: storage.put_folder(key).__enter__(),
    ):
        with pytest.raises(InvalidKeyError):
            attempt(key)
    assert storage.files() == ["file"]


def test_the_longest_key_is_put_replaced_and_deleted_as_any_other(storage: LocalStorage) -> None:
    for key in ("x" * MAX_PART, "é" * (MAX_PART // 2), "Case", "case"):
        storage.put_text(f"{key}/{key}", "first")
        storage.put_text(f"{key}/{key}", "second")
        assert storage.read_text(f"{key}/{key}") == "second"
    assert len(storage.files()) == 4
    for key in storage.folders():
        storage.delete(key)
    assert storage.files() == []


def test_a_folder_that_vanishes_while_it_is_listed_has_no_files(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("tenant=a/day/file", "tenant=b/.tmp-file-0123456789ab", "tenant=b/file"):
        storage.root.joinpath(key).parent.mkdir(parents=True, exist_ok=True)
        storage.root.joinpath(key).write_text("x")
    list_folder, vanished = os.scandir, []

    def deleting(path: "str | Path | int") -> "os._ScandirIterator[str]":
        if path == str(storage.root / "tenant=a"):
            vanished.append(path)
            monkeypatch.setattr(os, "scandir", list_folder)
            shutil.rmtree(path)
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", deleting)
    assert storage.files() == ["tenant=b/file"]
    storage.put_text("tenant=a/day/file", "x")
    monkeypatch.setattr(os, "scandir", deleting)
    storage.remove_unfinished()
    assert len(vanished) == 2
    assert not (storage.root / "tenant=b/.tmp-file-0123456789ab").exists()


def test_a_folder_that_may_not_be_read_does_not_look_empty(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put_text("tenant=a/file", "x")
    list_folder = os.scandir

    def refusing(path: str | Path) -> "os._ScandirIterator[str]":
        if Path(path).name == "tenant=a":
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError):
        storage.files()


def test_who_waited_for_the_lock_of_a_folder_that_was_deleted_keeps_others_out(storage: LocalStorage) -> None:
    held, done = threading.Event(), threading.Event()

    def wait_and_hold() -> None:
        with storage.lock("tenant=a"):
            held.set()
            assert done.wait(30)

    with ThreadPoolExecutor(1) as pool:
        with storage.lock("tenant=a"):
            waiting = pool.submit(wait_and_hold)
            wait_until("the other", waits_for_folder_lock)
            storage.delete("tenant=a")
        assert held.wait(30)
        with (storage.root / "tenant=a" / ".lock").open("w") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done.set()
        waiting.result()


def test_two_who_delete_the_same_folder_at_once_both_succeed(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put_text("tenant=a/file", "of people")
    rename = Path.rename

    def second(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        open_storage(storage.root).delete("tenant=a")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", second)
    storage.delete("tenant=a")
    assert list(storage.root.iterdir()) == []


def test_what_is_deleted_stays_deleted_after_a_power_cut(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("days/file", "days/more/file"):
        storage.put_text(key, "of people")
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    storage.delete("days/file")
    storage.delete("days/more")
    assert synced == [storage.root / "days"] * 2


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(storage: LocalStorage) -> None:
    storage.put_text("file", "old")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))

    writing = (
        "import sys\nfrom pathlib import Path\nfrom configs.storage import open_storage\n"
        "open_storage(Path(sys.argv[1])).put_text('file', 'new' * 100_000)"
    )
    failed = subprocess.run(
        [sys.executable, "-c", writing, str(storage.root)], preexec_fn=small_files, capture_output=True, check=False
    )
    assert failed.returncode == 1 and b"File too large" in failed.stderr
    assert storage.read_text("file") == "old"
    assert [path.name for path in storage.root.iterdir()] == ["file"]


@contextmanager
def computation(storage: LocalStorage) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process in the midst of a computation, and its scratch folder."""
    with subprocess.Popen([sys.executable, "-c", _COMPUTATION, str(storage.root)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, storage.root / process.stdout.readline().decode().strip()
        finally:
            process.kill()


def test_scratch_of_a_killed_process_is_deleted_and_that_of_a_living_one_is_not(storage: LocalStorage) -> None:
    with computation(storage) as (living, its), computation(storage) as (killed, left):
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert left.exists() and storage.files() == [] and storage.folders() == []
        with storage.scratch_folder() as own:
            assert sorted(storage.root.iterdir()) == sorted([its, own])
        storage.remove_unfinished()
        assert living.poll() is None and (its / "rows").exists()
    storage.under("a").root.mkdir()
    storage.remove_unfinished()
    assert [path.name for path in storage.root.iterdir()] == ["a"]


def test_scratch_may_be_deleted_with_the_storage_that_it_lies_in(storage: LocalStorage) -> None:
    with storage.under("tenant=a").scratch_folder() as folder:
        (folder / "rows").write_text("x")
        storage.delete("tenant=a")
    assert list(storage.root.iterdir()) == []


def test_the_copy_of_a_lake_leaves_out_a_tenant_that_is_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = PathSettings(state_dir=tmp_path / "state")
    lake, copy_file = open_storage(paths.lake), contents.copy_file
    for tenant in ("acme", "gone", "shop"):
        for name in ("cursor.json", "items/1.parquet"):
            lake.put_text(f"tenant={tenant}/{name}", "x")

    def deleting(source: Path, target: Path) -> str:
        copied = copy_file(source, target)
        if "tenant=gone" in source.parts:
            lake.delete("tenant=gone")
        return copied

    monkeypatch.setattr(contents, "copy_file", deleting)
    contents.copy_lake(paths, tmp_path / "copy")
    copied = open_storage(tmp_path / "copy" / "lake")
    assert copied.folders() == ["tenant=acme", "tenant=shop"]
    assert len(copied.files()) == 4


def test_an_empty_secret_is_none(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        kept_secret(tmp_path / "secret")


_WRITERS = {
    "ParquetWriter",
    "write_table",
    "savez",
    "write_text",
    "write_bytes",
    "mkdir",
    "rename",
    "replace",
    "unlink",
    "rmdir",
    "touch",
    "hardlink_to",
}
_OF_MODULES = {
    "shutil": {"move", "copy", "copy2", "copyfile", "copytree", "rmtree"},
    "os": {"replace", "rename", "remove", "unlink", "makedirs", "mkdir", "symlink", "link", "rmdir"},
}


def test_every_module_that_writes_by_hand_is_known() -> None:
    """All others of these packages keep files by the storage, or write none."""
    root = Path(__file__).parents[2]
    found = {
        source.relative_to(root).as_posix()
        for package in ("feature_store", "serving", "pipelines", "api/imports")
        for source in (root / package).rglob("*.py")
        if any(_writes(node) for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))))
    }
    assert found == {
        "feature_store/lake.py",  # into what the storage puts
        "feature_store/erasure.py",
        "feature_store/loaders/problems.py",
        "feature_store/snapshots.py",
        "feature_store/snapshot_ranges.py",  # in a work folder of the storage
        "serving/release.py",
        "serving/release_cache.py",  # copies on the model server's disk
        "api/imports/store.py",  # in a scratch folder
        "feature_store/table_files.py",  # into what the storage puts, or where an operator says
        "pipelines/__main__.py",  # for this machine alone: settings of Dagster's programs, logs, folders for MLflow
        "pipelines/instance.py",
        "pipelines/old_runs.py",  # Dagster's files of runs that it forgets
        "pipelines/defs/ingestion/tenant_deletion.py",
        "serving/__main__.py",
        "pipelines/defs/training/steps.py",  # work folders of trainings
        "pipelines/defs/publishing/steps.py",
        "pipelines/defs/generation/tasks.py",  # in a scratch folder
    }


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    name, owner = node.func.attr, node.func.value
    if isinstance(owner, ast.Name) and owner.id in _OF_MODULES:
        return name in _OF_MODULES[owner.id]
    if name == "open":
        return any(isinstance(each, ast.Constant) and set(str(each.value)) & set("wax+") for each in node.args)
    # `str.replace` takes two texts; `Path.replace` one path.
    return name in _WRITERS and not (name == "replace" and (len(node.args) != 1 or node.keywords))
