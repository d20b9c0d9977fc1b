"""Files of the platform as objects of an object store.

A file is an object under its key. An object store has no folders that appear or vanish as a whole. Hidden objects,
whose names begin with a dot, make up for that: manifests and parts (`configs.object_folders`), and

    .deletions/<key>     what is at or below this key is being deleted, and readers no longer see it

A listing shows every request that has ended, in S3 as in Google's and Azure's stores. Locks are PostgreSQL's
(`configs.advisory_locks`). Programs that put and delete at the same key must hold its lock.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from configs.advisory_locks import advisory_lock, check_locks
from configs.buckets import Bucket
from configs.fetched_files import FetchedFiles
from configs.files import (
    SHARED,
    discard_folder,
    discards_in,
    finish_discards,
    publish_folder,
    remove_unfinished,
    sync_below,
    unfinished_folder,
)
from configs.files import scratch_folder as local_scratch_folder
from configs.object_folders import MANIFEST_OBJECT, PARTS, ObjectFile, ObjectFolders, file_digest, is_at_or_below
from configs.storage import Storage, checked_key

_DELETIONS = ".deletions"
_CONNECTIONS = 8
"""Files of a folder that are fetched at once."""


@dataclass(frozen=True)
class ObjectStorage(Storage):
    """Files below a prefix of a bucket.

    Args:
        folder: a folder of this machine, for work folders and scratch folders.
        fetched: gives the copies of objects on this machine.
        database_url: gives the URL of the database that holds the locks.
        lock_scope: distinguishes the locks of this bucket from those of other buckets in the same database.
    """

    bucket: Bucket
    prefix: str
    folder: Path
    fetched: Callable[[], FetchedFiles]
    database_url: Callable[[], str]
    lock_scope: str

    @contextmanager
    def put(self, key: str, mode: int = SHARED) -> Iterator[Path]:
        path = self._path_below(key)
        file = self._fetched.new_path()
        file.touch(mode)
        try:
            yield file
            check_locks()
            self._end_deletions_at(path)
            self.bucket.put(path, file)
            self._fetched.drop(path)
        finally:
            file.unlink()

    @contextmanager
    def put_folder(self, key: str) -> Iterator[Path]:
        path = self._path_below(key)
        folder = self._fetched.new_path()
        folder.mkdir()
        try:
            yield folder
            check_locks()
            self._end_deletions_at(path)
            if self._visible(path):
                raise FileExistsError(f"{path} has files already")
            self._folders.put(folder, path)
            self._fetched.drop(path)
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        self.remove_unfinished()
        folder = unfinished_folder(self.folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def scratch_folder(self) -> AbstractContextManager[Path]:
        return local_scratch_folder(self.folder)

    def local(self, key: str) -> Path:
        path = self.path(key)
        visible = self._visible(path)
        self._fetched.keep_only(path, set(visible))
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            copies = [
                pool.submit(self._fetched.get, name, file.etag, file.size, self._fetch(file))
                for name, file in visible.items()
            ]
        for copy in copies:
            copy.result()
        return self._fetched.path(path)

    def kept_copy(self, key: str, parent: Path) -> Path:
        path = self._path_below(key)
        manifest = self._folders.manifest(path)
        if not manifest.files or self.is_being_deleted(path, self.deletions()):
            raise FileNotFoundError(f"no folder {path}")
        target = parent / manifest.digest
        if target.exists():
            return target
        folder = unfinished_folder(parent)
        try:
            for name, file in self._folders.files(path).items():
                copy = folder / name[len(path) + 1 :]
                copy.parent.mkdir(parents=True, exist_ok=True)
                self._fetch(file)(copy)
            sync_below(folder)
            with suppress(FileExistsError):  # another process was first
                publish_folder(folder, target)
        finally:
            if folder.exists():
                shutil.rmtree(folder)
        return target

    def read_text(self, key: str) -> str:
        path = self._path_below(key)
        if not self.is_being_deleted(path, self.deletions()):
            try:
                return self.bucket.read(path)[0].decode()
            except FileNotFoundError:
                if (file := self._folders.files_within(path).get(path)) is not None:
                    return self.bucket.read(file.object_key)[0].decode()
        raise FileNotFoundError(f"no object {path}")

    def exists(self, key: str) -> bool:
        path, deletions = self.path(key), self.deletions()
        if any(is_at_or_below(each, path) for each in deletions):
            return True
        if self.is_being_deleted(path, deletions):
            return False
        if self.bucket.info(path) is not None:
            return True
        for each in self.bucket.below(path):
            folder, _, name = each.key.rpartition("/")
            if name != MANIFEST_OBJECT or self._folders.files(folder):
                return True
        return bool(self._folders.files_within(path))

    def files(self, key: str = "") -> list[str]:
        path = self.path(key)
        found = (name[len(self.prefix) + 1 :] for name in self._visible(path) if name != path)
        return sorted(name for name in found if "/." not in f"/{name}")

    def folders(self, key: str = "") -> list[str]:
        path = self.path(key)
        below = set(self.bucket.children(path))
        put_as_whole = self._folders.files(path) or ({} if below else self._folders.files_within(path))
        below |= {first for first, *rest in (name[len(path) + 1 :].split("/") for name in put_as_whole) if rest}
        deletions = self.deletions()
        return sorted(
            name
            for name in below
            if not name.startswith(".") and not self.is_being_deleted(f"{path}/{name}", deletions)
        )

    def listed(self, key: str) -> Storage:
        from configs.object_listing import ListedObjects  # it imports this module

        return ListedObjects.below(self, key)

    def size(self, key: str) -> int:
        return sum(file.size for file in self._visible(self.path(key)).values())

    def delete(self, key: str) -> None:
        path = self._path_below(key)
        check_locks()
        self._fetched.drop(path)
        if (local := self.folder / key).is_dir():
            discard_folder(local)
        is_folder = any(next(self.bucket.below(each), None) for each in (path, f"{PARTS}/{path}"))
        if is_folder or path in self.deletions():
            self.bucket.put(f"{_DELETIONS}/{path}", b"")
            self._end_deletion(path)
        else:
            self.bucket.delete([path])
            self._folders.delete_file(path)

    def finish_deletions(self) -> None:
        finish_discards(discards_in(self.folder))
        for path in self.deletions():
            if is_at_or_below(path, self.prefix):
                self._end_deletion(path)

    def lock(self, key: str = "") -> AbstractContextManager[None]:
        return advisory_lock(self.database_url(), f"{self.lock_scope}/{self.path(key)}")

    def remove_unfinished(self, key: str = "") -> None:
        remove_unfinished(self.folder / key)
        self._folders.delete_orphaned_parts(self.path(key))

    def under(self, key: str) -> "ObjectStorage":
        return replace(self, prefix=self.path(key), folder=self.folder / key)

    @cached_property
    def _fetched(self) -> FetchedFiles:
        return self.fetched()

    @property
    def _folders(self) -> ObjectFolders:
        return ObjectFolders(self.bucket)

    def path(self, key: str) -> str:
        """The key of an object; the prefix for the empty key."""
        return "/".join([self.prefix, *checked_key(key)])

    def _path_below(self, key: str) -> str:
        """The key of an object that is not the whole storage."""
        return "/".join([self.prefix, *checked_key(key, whole=False)])

    def _visible(self, path: str) -> dict[str, ObjectFile]:
        """The files at and below a path that readers see, by their keys.

        Files that are being deleted are left out. A deletion that begins during the listing may still be missed.
        """
        in_folders: dict[str, ObjectFile] = {}
        alone: dict[str, ObjectFile] = {}
        for each in self.bucket.below(path):
            folder, _, name = each.key.rpartition("/")
            if name == MANIFEST_OBJECT:
                in_folders |= self._folders.files(folder)
            else:
                alone[each.key] = ObjectFile(each.key, each.size, each.etag)
        if (info := self.bucket.info(path)) is not None:
            alone[path] = ObjectFile(path, info.size, info.etag)
        found = in_folders | alone  # a file of a folder may have been replaced later
        found = found or self._folders.files_within(path)
        deletions = self.deletions()
        return {name: file for name, file in found.items() if not self.is_being_deleted(name, deletions)}

    def _fetch(self, file: ObjectFile) -> Callable[[Path], None]:
        def fetch(target: Path) -> None:
            self.bucket.fetch(file.object_key, target)
            if file.sha256 is not None and file_digest(target) != file.sha256:
                raise OSError(f"the object {file.object_key} is not what was put there")

        return fetch

    @staticmethod
    def is_being_deleted(path: str, deletions: set[str]) -> bool:
        """Whether a path is at or below one of these deletions."""
        return any(is_at_or_below(path, each) for each in deletions)

    def deletions(self) -> set[str]:
        """The keys at and below which a deletion has begun and not ended, also where its process was killed."""
        return {each.key.removeprefix(f"{_DELETIONS}/") for each in self.bucket.below(_DELETIONS)}

    def _end_deletions_at(self, path: str) -> None:
        """End the deletions above and below a path, which would hide what is put there."""
        for each in self.deletions():
            if is_at_or_below(each, path) or is_at_or_below(path, each):
                self._end_deletion(each)

    def _end_deletion(self, path: str) -> None:
        """Delete all objects at and below a path, and then the object that announced the deletion."""
        for prefix in (path, f"{PARTS}/{path}"):
            self.bucket.delete(each.key for each in self.bucket.below(prefix))
        self.bucket.delete([path])
        self.bucket.delete([f"{_DELETIONS}/{path}"])
