"""The storage of the files that the platform keeps: the lake, features, releases, rejected rows, values of assets.

All of them are put, read, listed, deleted and locked through `Storage`, under keys such as `items/3.parquet`. They lie
in local folders, or in an object store where `STATE_URL` is set (`configs.object_storage`). `open_storage` chooses, and
its callers need not know.

What a program keeps for this machine alone does not belong here: secrets, sockets, locks of programs, the bundled
PostgreSQL, and the journals, which are appended to. MLflow keeps its artefacts in a store of its own.
"""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from configs.files import (
    SHARED,
    atomic_file,
    discard_folder,
    discards_in,
    discards_of,
    finish_discards,
    folder_walk,
    locked,
    publish_folder,
    remove_unfinished,
    remove_unfinished_copies,
    scratch_folder,
    sync,
    sync_below,
    unfinished_folder,
)
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from configs.state_settings import StateSettings

MAX_PART = 200
"""Bytes of a part of a key. Local file systems have names of 255 bytes, and temporary names are longer."""


class InvalidKeyError(ValueError):
    """A text that names no file of a storage: absolute, hidden, too long, or with a part that leads upwards."""


class Storage(ABC):
    """Files by key. A key has parts between slashes; parts that begin with a dot are the storage's own.

    A file is whole from the moment that it can be read or listed. Every method raises InvalidKeyError for a text that
    is no key, and OSError where the place of the files fails.
    """

    @abstractmethod
    def put(self, key: str, mode: int = SHARED) -> AbstractContextManager[Path]:
        """Yield an empty local file, whose content replaces that of the key when the block ends, and not if it raises.

        mode: permissions of the file, where the place knows permissions. The block must not replace the local file.
        """

    @abstractmethod
    def put_folder(self, key: str) -> AbstractContextManager[Path]:
        """Yield an empty local folder, whose files appear together under the key when the block ends.

        Nothing appears where the block raises. Raises OSError where the key has files already.
        """

    @abstractmethod
    def work_folder(self) -> AbstractContextManager[Path]:
        """Yield an empty local folder with room for what will be put; it is deleted when the block ends.

        What killed processes left is deleted first. Call it with the lock of this storage held.
        """

    @abstractmethod
    def scratch_folder(self) -> AbstractContextManager[Path]:
        """Yield an empty local folder for a computation that puts nothing; it is deleted when the block ends.

        Needs no lock. What killed processes left is deleted by the next call, and by `remove_unfinished`.
        """

    @abstractmethod
    def local(self, key: str) -> Path:
        """A local path where the file or the folder of this key can be read now. It is not to be written to.

        An object store fetches it first, for as long as the process runs.
        """

    @abstractmethod
    def kept_copy(self, key: str, parent: Path) -> Path:
        """A local folder where the files of a folder can be read, also after this process has ended.

        An object store fetches them into `parent`, under a name that is a hash of their contents, unless they are
        there already. Raises FileNotFoundError without such a folder.
        """

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is a file, or a file below it. A folder exists until all of it is deleted."""

    @abstractmethod
    def files(self, key: str = "") -> list[str]:
        """The keys of all files below this key, sorted. Empty where there is none."""

    @abstractmethod
    def folders(self, key: str = "") -> list[str]:
        """The names of the folders directly below this key, sorted. Empty where there is none."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes of the file, or of all files below the key. Raises OSError where they cannot be read."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete the file, or all files below the key, which vanish together. Nothing there is no error.

        Where the process is killed meanwhile, call it again: it also deletes what an earlier call left.
        """

    @abstractmethod
    def finish_deletions(self) -> None:
        """Delete what killed processes left of folders directly in this storage that they deleted."""

    @abstractmethod
    def lock(self, key: str = "") -> AbstractContextManager[None]:
        """Hold the lock of this key. Waits while another process or thread holds it."""

    @abstractmethod
    def remove_unfinished(self, key: str = "") -> None:
        """Delete what killed processes left of this file, or of files and folders below it. Nobody may put any then."""

    @abstractmethod
    def under(self, key: str) -> "Storage":
        """The storage of the files below this key, under keys without it."""

    def put_text(self, key: str, text: str, mode: int = SHARED) -> None:
        """Replace a file's content, in UTF-8, in one step."""
        with self.put(key, mode) as file:
            file.write_text(text, encoding="utf-8")

    def listed(self, key: str) -> "Storage":
        """This storage, for reads of many folders and texts below a key. An object store lists them once, as of now."""
        return self

    def read_text(self, key: str) -> str:
        """The content of a file, in UTF-8. Raises FileNotFoundError without one."""
        return self.local(key).read_text(encoding="utf-8")


@dataclass(frozen=True)
class LocalStorage(Storage):
    """Files in a folder of this machine, or of a file system that several machines share."""

    root: Path

    @contextmanager
    def put(self, key: str, mode: int = SHARED) -> Iterator[Path]:
        with atomic_file(self._path_below(key), mode) as file:
            yield file

    @contextmanager
    def put_folder(self, key: str) -> Iterator[Path]:
        target = self._path_below(key)
        folder = unfinished_folder(target.parent)
        try:
            yield folder
            sync_below(folder)
            publish_folder(folder, target)
        finally:
            if folder.exists():  # it was not renamed
                shutil.rmtree(folder)

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        self.remove_unfinished()
        folder = unfinished_folder(self.root)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        with scratch_folder(self.root) as folder:
            yield folder

    def local(self, key: str) -> Path:
        return self._path(key)

    def kept_copy(self, key: str, parent: Path) -> Path:
        return self._path(key)

    def exists(self, key: str) -> bool:
        path = self._path(key)
        return path.exists() or bool(discards_of(path))

    def files(self, key: str = "") -> list[str]:
        found = []
        for here, folders, names in folder_walk(self._path(key)):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files = (Path(here, name) for name in names if not name.startswith("."))
            found += [file.relative_to(self.root).as_posix() for file in files if file.is_file()]
        return sorted(found)

    def folders(self, key: str = "") -> list[str]:
        try:
            with os.scandir(self._path(key)) as found:
                return sorted(each.name for each in found if each.is_dir() and not each.name.startswith("."))
        except FileNotFoundError:
            return []

    def size(self, key: str) -> int:
        path = self._path(key)
        return path.stat().st_size if path.is_file() else sum(each.stat().st_size for each in path.rglob("*"))

    def delete(self, key: str) -> None:
        path = self._path_below(key)
        if path.is_dir():
            discard_folder(path)
            return
        with suppress(FileNotFoundError):
            path.unlink()
            sync(path.parent)  # a power cut must not bring it back
        finish_discards(discards_of(path))

    def finish_deletions(self) -> None:
        finish_discards(discards_in(self.root))

    @contextmanager
    def lock(self, key: str = "") -> Iterator[None]:
        with locked(self._path(key)):
            yield

    def remove_unfinished(self, key: str = "") -> None:
        path = self._path(key)
        remove_unfinished(path)
        if key:
            remove_unfinished_copies(path)

    def under(self, key: str) -> "LocalStorage":
        return LocalStorage(self._path(key))

    def _path(self, key: str) -> Path:
        """The path of a key; the root for the empty one."""
        return self.root.joinpath(*checked_key(key))

    def _path_below(self, key: str) -> Path:
        """The path of a key of something in the storage, which is not all of it."""
        return self.root.joinpath(*checked_key(key, whole=False))


def open_storage(location: Path) -> Storage:
    """The storage of the files at this place of the installation, such as `PathSettings.lake`.

    Lake, features and releases are in the object store where `STATE_URL` is set.
    """
    if not StateSettings.has_url():
        return LocalStorage(location)
    settings, paths = StateSettings(), PathSettings()
    if settings.url is None or (prefix := settings.prefix_of(location, paths)) is None:
        return LocalStorage(location)
    # These load the clients of the object store and of the database, which local folders do not need.
    from configs.buckets import open_bucket
    from configs.fetched_files import fetched_files
    from configs.object_storage import ObjectStorage

    return ObjectStorage(
        open_bucket(settings),
        prefix,
        location.absolute(),
        fetched=lambda: fetched_files(paths.root / "fetched"),
        database_url=lambda: DatabaseSettings().resolve(paths),
        lock_scope=settings.url.rstrip("/"),
    )


def checked_key(key: str, *, whole: bool = True) -> list[str]:
    """The parts of a key between slashes. Raises InvalidKeyError for a text that is no key.

    whole: whether the empty key is allowed, which stands for the whole storage.
    """
    if not key and not whole:
        raise InvalidKeyError("the empty key stands for the whole storage")
    parts = key.split("/") if key else []
    if not all(_is_part(part) for part in parts):
        raise InvalidKeyError(f"not a key of a file: {key!r}")
    return parts


def _is_part(text: str) -> bool:
    """Whether the text may stand between the slashes of a key."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return 0 < size <= MAX_PART and not text.startswith(".") and "\0" not in text
