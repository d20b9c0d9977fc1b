"""Files are replaced atomically, and private files are never readable by others."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs.files import (
    atomic_file,
    kept_secret,
    publish_folder,
    remove_unfinished,
    remove_unfinished_copies,
    unfinished_folder,
    write_private,
)


def test_a_private_file_is_replaced_whole_and_never_readable_by_others(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_text("old")
    target.chmod(0o644)
    write_private(target, "new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail() -> None:
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with atomic_file(target) as first:
        with atomic_file(target) as second:
            first.write_text("first")
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    """A process that is killed runs no clean-up; the next writer does."""
    kept, other = tmp_path / "kept", tmp_path / "other"
    kept.write_text("whole")
    copies = [tmp_path / f".tmp-{name}-0123456789ab" for name in ("kept", "other")]
    for copy in copies:
        copy.write_text("half")
    folder = unfinished_folder(tmp_path)
    (folder / ".tmp-part").write_text("half")
    remove_unfinished_copies(kept)
    assert sorted(tmp_path.iterdir()) == sorted([kept, copies[1], folder])
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]
    assert not other.exists()


def test_a_folder_appears_with_all_of_its_files(tmp_path: Path) -> None:
    folder = unfinished_folder(tmp_path)
    (folder / "file").write_text("content")
    publish_folder(folder, tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target" / "file").read_text() == "content"


def test_processes_that_need_a_secret_at_once_agree_on_one(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: kept_secret(path), range(32)))
    (secret,) = found
    assert len(secret) >= 32 and kept_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["secret"]
