"""Writes files and folders atomically: a reader sees a complete file or none, also after a crash.

A file is written under a temporary name (`.tmp-...`) in its own folder, synced to disk, and renamed into place.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO
from uuid import uuid4

PRIVATE = 0o600
"""Mode of a file that its owner alone may read."""
PRIVATE_UMASK = 0o077
"""The umask of every program of the installation."""
SHARED = 0o666
"""Mode of any other file, before the umask."""
_UNFINISHED = ".tmp-"
_DISCARDED = ".deleted-"
_SCRATCH = ".scratch-"
_LOCK = ".lock"
_SUFFIX = 12
"""Random characters at the end of a temporary file's name."""
PASSING = (_UNFINISHED, _DISCARDED, _SCRATCH, _LOCK)
"""Beginnings of names that are no files of anybody: they belong to a write, a deletion or a computation that runs, or
that a killed process left."""


def keep_state_private() -> None:
    """Make what this process and its children create from now on readable by their user alone.

    The lake, features, models and logs hold what people did, and other users of the machine must not read them.
    """
    os.umask(PRIVATE_UMASK)


@contextmanager
def atomic_file(path: Path, mode: int = SHARED) -> Iterator[Path]:
    """Yield an empty temporary file, which replaces `path` when the block ends and is deleted when the block raises.

    Makes the parent folder where it is missing.

    Args:
        mode: permissions from the first byte on, before the umask. The block must write into the temporary file and not
            replace it, because a new file would have other permissions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_UNFINISHED}{path.name}-{uuid4().hex[:_SUFFIX]}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str, mode: int = SHARED) -> None:
    """Replace a file's content in one step."""
    with atomic_file(path, mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_private(path: Path, text: str) -> None:
    """Replace a file's content in one step; nobody but its owner can read it at any moment."""
    write_text(path, text, PRIVATE)


def kept_secret(path: Path) -> str:
    """The secret in this file, which is made where it is missing. Processes that make it at once agree on one.

    Raises ValueError for an empty file: nothing would then be as good as the secret.
    """
    try:
        return _read_secret(path)
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{_UNFINISHED}{path.name}-{uuid4().hex[:_SUFFIX]}")
    write_private(made, secrets.token_urlsafe(32))
    try:
        os.link(made, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        made.unlink()
    return _read_secret(path)


def _read_secret(path: Path) -> str:
    secret = path.read_text(encoding="ascii").strip()
    if not secret:
        raise ValueError(f"{path} is empty: delete it, and a new secret is made")
    return secret


def unfinished_folder(parent: Path) -> Path:
    """Make a folder under a temporary name, to be renamed once it is complete."""
    folder = parent / f"{_UNFINISHED}{uuid4().hex}"
    folder.mkdir(parents=True)
    return folder


def publish_folder(folder: Path, target: Path) -> None:
    """Rename a complete folder into place so that the rename survives a power cut."""
    folder.rename(target)
    sync(target.parent)


def sync_below(folder: Path) -> None:
    """Write the bytes of all files in a folder, and its names, to disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def discard_folder(folder: Path) -> None:
    """Delete a folder whose files vanish together. What a killed process leaves of it, `finish_discards` deletes."""
    with suppress(FileNotFoundError):  # another process discards it too
        folder.rename(folder.with_name(f"{_DISCARDED}{uuid4().hex}-{folder.name}"))
        sync(folder.parent)  # a power cut must not bring back what was deleted
    finish_discards(discards_of(folder))


def discards_of(folder: Path) -> list[Path]:
    """What is left of discarded folders of this name, which killed processes did not delete."""
    return list(folder.parent.glob(f"{_DISCARDED}{'?' * len(uuid4().hex)}-{escape(folder.name)}"))


def discards_in(parent: Path) -> list[Path]:
    """What is left directly in `parent` of discarded folders of any name."""
    return list(parent.glob(f"{_DISCARDED}*"))


def finish_discards(left: Iterable[Path]) -> None:
    """Delete what is left of discarded folders. Nobody reads it, so any process may, at any time."""
    for path in left:
        _delete_beside_others(path)


def folder_walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, but raises OSError where a folder cannot be read. A folder that vanishes meanwhile has no files."""
    return os.walk(folder, onerror=_raise_unless_vanished)


def remove_unfinished(folder: Path) -> None:
    """Delete the temporary files and folders that killed processes left below `folder`. Call it while nobody writes.

    Scratch folders in use stay.
    """
    for here, folders, names in folder_walk(folder):
        for name in [name for name in folders if name.startswith(_UNFINISHED)]:
            _delete_beside_others(Path(here, name))
        for name in [name for name in names if name.startswith(_UNFINISHED)]:
            Path(here, name).unlink(missing_ok=True)
        remove_left_scratch(Path(here))
        folders[:] = [name for name in folders if not name.startswith(PASSING)]


def remove_unfinished_copies(path: Path) -> None:
    """Delete the temporary files that killed processes left of `path`. Call it while nobody writes `path`."""
    for copy in path.parent.glob(f"{_UNFINISHED}{escape(path.name)}-{'?' * _SUFFIX}"):
        copy.unlink(missing_ok=True)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent` for a computation; it is deleted when the block ends.

    Its lock says that somebody works in it. Folders that killed processes left are deleted first, since they may hold
    what people did.
    """
    remove_left_scratch(parent)
    folder = parent / f"{_SCRATCH}{uuid4().hex}"
    with locked(folder):
        try:
            yield folder
        finally:
            _delete_beside_others(folder)  # `parent` may have been deleted meanwhile


def remove_left_scratch(parent: Path) -> None:
    """Delete the scratch folders directly in `parent` that nobody works in any more. Any process may, at any time."""
    for folder in parent.glob(f"{_SCRATCH}*"):
        with suppress(FileNotFoundError, BlockingIOError), (folder / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _delete_beside_others(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder where it is missing, and hold its lock. Waits while another process holds it."""
    with _lock_file(folder):
        yield


def _lock_file(folder: Path) -> IO[str]:
    """The open and locked file of a folder's lock.

    Where the folder was deleted during the wait, the lock of its file keeps nobody out, so the new file's is taken.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), ExitStack() as opened:
            lock = opened.enter_context((folder / _LOCK).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock.fileno()), (folder / _LOCK).stat()):
                opened.pop_all()
                return lock


def _delete_beside_others(path: Path) -> None:
    """Delete a folder that other processes may be deleting too."""
    while path.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)


def _raise_unless_vanished(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def sync(path: Path) -> None:
    """Write a file's bytes, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
