"""Files that the platform keeps appear whole or not at all, under keys that lead nowhere else: in a local folder and in
an object store alike."""

import ast
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.settings import PathSettings
from configs.storage import InvalidKeyError, LocalStorage, Storage, open_storage

_WRITER = """
import sys, time
from pathlib import Path
from configs.storage import open_storage

storage = open_storage(Path(sys.argv[1]))
with storage.lock(), storage.put("a/file") as file, storage.put_folder("folder") as folder:
    file.write_text("half")
    (folder / "part").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["local", pytest.param("objects", marks=pytest.mark.service)])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("RECOMMENDAI_STATE_DIR", str(tmp_path / "state"))
    if request.param == "objects":
        request.getfixturevalue("object_store")
    return open_storage(PathSettings().lake)


def test_what_is_put_is_read_listed_and_deleted(storage: Storage) -> None:
    storage.put_text("days/2.txt", "second")
    storage.put_text("days/1.txt", "first")
    storage.put_text("days/1.txt", "first again")
    with storage.put_folder("days/more") as folder:
        (folder / "3.txt").write_text("third")
    assert storage.files() == ["days/1.txt", "days/2.txt", "days/more/3.txt"]
    assert storage.files("days/more") == ["days/more/3.txt"]
    assert (storage.folders(), storage.folders("days"), storage.folders("nowhere")) == (["days"], ["more"], [])
    assert storage.read_text("days/1.txt") == "first again"
    assert storage.under("days").files() == ["1.txt", "2.txt", "more/3.txt"]
    for key in ("days/more", "days/2.txt", "days/2.txt", "nowhere"):
        storage.delete(key)
    assert storage.files() == ["days/1.txt"]
    with pytest.raises(FileNotFoundError):
        storage.read_text("days/2.txt")


def test_a_block_that_raises_puts_nothing(storage: Storage) -> None:
    storage.put_text("file", "old")
    for put in (storage.put("file"), storage.put_folder("folder")):
        with pytest.raises(OSError, match="disk full"), put as path:
            (path if path.is_file() else path / "part").write_text("half")
            raise OSError("disk full")
    assert storage.files() == ["file"]
    assert storage.read_text("file") == "old"


def test_a_folder_is_never_put_over_another(storage: Storage) -> None:
    storage.put_text("folder/part", "whole")
    with pytest.raises(OSError), storage.put_folder("folder") as folder:
        (folder / "part").write_text("other")
    assert storage.read_text("folder/part") == "whole"
    assert storage.files() == ["folder/part"]


def test_a_killed_writer_leaves_nothing_that_can_be_read_and_frees_its_lock(storage: Storage) -> None:
    storage.put_text("a/file", "old")
    lake = PathSettings().lake
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(lake)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        assert storage.files() == ["a/file"]
        os.kill(writer.pid, signal.SIGKILL)
    with storage.lock():
        storage.remove_unfinished()
    assert storage.files() == ["a/file"]
    assert storage.read_text("a/file") == "old"
    left = sorted(path.name for path in lake.rglob("*"))
    assert left == ([".lock", "a", "file"] if isinstance(storage, LocalStorage) else [])


def test_a_killed_deletion_is_known_and_the_next_call_ends_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted may name people, so whoever asks must learn that some of it is still there."""
    for key in ("tenant=a/file", "tenant=b-tenant=a/file", "tenant=c/file"):
        storage.put_text(key, "of people")
    with monkeypatch.context() as killed:
        for deleting in ("configs.files.shutil.rmtree", "configs.buckets.obstore.delete"):
            killed.setattr(deleting, lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        for key in ("tenant=a", "tenant=c"):
            with pytest.raises(KeyboardInterrupt):
                storage.delete(key)
    assert storage.files() == ["tenant=b-tenant=a/file"]
    assert storage.exists("tenant=a") and storage.exists("tenant=c") and not storage.exists("tenant=d")
    storage.delete("tenant=a")
    assert not storage.exists("tenant=a") and storage.exists("tenant=c")
    storage.finish_deletions()
    assert not storage.exists("tenant=c")
    assert storage.files() == ["tenant=b-tenant=a/file"]
    if isinstance(storage, LocalStorage):
        assert [path.name for path in sorted(storage.root.rglob("*"))] == ["tenant=b-tenant=a", "file"]


def test_of_two_writers_of_the_same_folder_one_wins_and_the_other_gets_an_error(storage: Storage) -> None:
    both_wrote = Barrier(2, timeout=60)

    def put(writer: str) -> str:
        try:
            with storage.put_folder("release") as folder:
                for name in ("a", "b"):
                    (folder / name).write_text(writer)
                both_wrote.wait()
        except OSError:
            return "told"
        return writer

    with ThreadPoolExecutor(2) as pool:
        results = sorted(pool.map(put, ["first", "second"]))
    assert len(set(results)) == 2 and "told" in results
    (winner,) = set(results) - {"told"}
    assert {storage.read_text(key) for key in storage.files()} == {winner}
    storage.remove_unfinished()
    assert storage.files() == ["release/a", "release/b"]


def test_a_lock_is_waited_for(storage: Storage) -> None:
    order: list[str] = []
    waiting = Event()

    def second() -> None:
        waiting.set()
        with storage.lock("tenant=a"):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with storage.lock("tenant=a"):
            other = pool.submit(second)
            assert waiting.wait(60)
            storage.put_text("tenant=a/file", "written while the other waits")
            order.append("first")
        other.result()
    assert order == ["first", "second"]


def test_a_file_of_a_folder_is_replaced_and_deleted_as_any_other(storage: Storage) -> None:
    with storage.put_folder("snapshot") as folder:
        for name in ("items", "manifest", "events/1"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("first")
    storage.put_text("snapshot/manifest", "second")
    assert storage.files("snapshot/events") == ["snapshot/events/1"]
    assert storage.folders("snapshot") == ["events"]
    assert (storage.local("snapshot") / "events" / "1").read_text() == "first"
    assert (storage.local("snapshot") / "manifest").read_text() == storage.read_text("snapshot/manifest") == "second"
    assert storage.size("snapshot/events/1") == 5
    storage.delete("snapshot/manifest")
    storage.delete("snapshot/events/1")
    assert storage.files() == ["snapshot/items"] and not storage.exists("snapshot/manifest")
    storage.delete("snapshot")
    assert not storage.exists("snapshot")
    with storage.put_folder("snapshot") as folder:
        (folder / "items").write_text("anew")
    assert storage.local("snapshot/items").read_text() == "anew"


def test_the_lock_of_one_key_leaves_others_free(storage: Storage) -> None:
    with storage.lock("one"), storage.lock("two"):
        storage.put_text("one/file", "written under its lock")
    assert storage.files() == ["one/file"]


@given(st.lists(st.sampled_from(["a", "b.parquet", "tenant=x", "", ".", "..", ".lock", "~", "\0", "a\\b"]), max_size=4))
def test_a_key_never_leads_out_of_the_storage(parts: list[str]) -> None:
    root = Path("/storage/of/files")
    key = "/".join(parts)
    if any(part == "" or part.startswith(".") or "\0" in part for part in parts) and key:
        with pytest.raises(InvalidKeyError):
            LocalStorage(root).local(key)
    else:
        assert LocalStorage(root).local(key).is_relative_to(root)
        assert Path(os.path.normpath(LocalStorage(root).local(key))).is_relative_to(root)


def test_no_module_keeps_files_past_the_storage() -> None:
    """What writes files by other means writes for this machine alone, or into a work folder."""
    writers = {"atomic_file", "locked", "publish_folder", "unfinished_folder", "write_text"}
    root = Path(__file__).parents[2]
    found = {
        source.relative_to(root).as_posix()
        for package in ("feature_store", "serving", "pipelines", "api/imports")
        for source in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "configs.files"
        if writers & {each.name for each in node.names}
    }
    assert found == {
        "feature_store/lake.py",  # in a work folder
        "feature_store/snapshot_ranges.py",  # in a work folder
        "pipelines/defs/generation/tasks.py",  # in a scratch folder
        "pipelines/instance_file.py",  # Dagster's settings
        "pipelines/dagster_programs.py",
    }
