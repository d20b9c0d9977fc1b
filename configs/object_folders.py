"""Folders whose files appear together in an object store.

    <folder>/.manifest               names the files; written last, and only where there is none
    .parts/<folder>/.<id>/<file>     their contents, under the id of an upload

Contents that no manifest names are being written, or were left by an upload that failed.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgspec

from configs.advisory_locks import check_locks
from configs.buckets import Bucket, ChangedObjectError

MANIFEST_OBJECT, PARTS = ".manifest", ".parts"
_ATTEMPTS = 10
"""Attempts to change a manifest that other writers change at the same time."""


class _Part(msgspec.Struct, frozen=True):
    size: int
    sha256: str


class FolderManifest(msgspec.Struct, frozen=True):
    """Which files a folder has."""

    id: str  # of the upload
    files: dict[str, _Part]

    @property
    def digest(self) -> str:
        """A hash of the names and contents of the files."""
        return hashlib.sha256(msgspec.json.encode(sorted(self.files.items()))).hexdigest()


@dataclass(frozen=True)
class ObjectFile:
    """A file that readers see, and the object that holds it."""

    object_key: str
    size: int
    etag: str
    sha256: str | None = None  # known of files that were put in a folder


@dataclass(frozen=True)
class ObjectFolders:
    """The folders of a bucket that were put as a whole. Keys are those of objects."""

    bucket: Bucket

    def manifest(self, folder: str) -> FolderManifest:
        """The manifest of a folder; an empty one where there is none."""
        try:
            return self._read(folder)[0]
        except FileNotFoundError:
            return FolderManifest("", {})

    def files(self, folder: str) -> dict[str, ObjectFile]:
        """The files of a folder by their keys. Empty where it was not put as a whole."""
        manifest = self.manifest(folder)
        return {
            f"{folder}/{name}": ObjectFile(_part(folder, manifest.id, name), part.size, part.sha256, part.sha256)
            for name, part in manifest.files.items()
        }

    def files_within(self, path: str) -> dict[str, ObjectFile]:
        """The files at and below a path within a folder that was put as a whole. Empty where it is in none."""
        for folder in _above(path):
            if found := {name: file for name, file in self.files(folder).items() if is_at_or_below(name, path)}:
                return found
        return {}

    def put(self, source: Path, folder: str) -> None:
        """Put the files of a local folder, all at once. Raises FileExistsError where the folder was put already."""
        upload = uuid4().hex
        parts: dict[str, _Part] = {}
        try:
            for file in sorted(each for each in source.rglob("*") if each.is_file()):
                name = file.relative_to(source).as_posix()
                parts[name] = _Part(file.stat().st_size, file_digest(file))
                self.bucket.put(_part(folder, upload, name), file)
            check_locks()
        except BaseException:
            self._discard_parts(folder, upload, parts)
            raise
        try:
            self._publish(folder, FolderManifest(upload, parts))
        except FileExistsError:
            self._discard_parts(folder, upload, parts)
            raise

    def delete_file(self, path: str) -> None:
        """Delete a file of a folder that was put as a whole. Does nothing where the path is in none."""
        for folder in _above(path):
            name = path[len(folder) + 1 :]
            for _ in range(_ATTEMPTS):
                try:
                    manifest, etag = self._read(folder)
                except FileNotFoundError:
                    break
                if name not in manifest.files:
                    break
                files = {each: part for each, part in manifest.files.items() if each != name}
                changed = msgspec.json.encode(FolderManifest(manifest.id, files))
                with suppress(ChangedObjectError):
                    self.bucket.put(f"{folder}/{MANIFEST_OBJECT}", changed, replaces=etag)
                    self.bucket.delete([_part(folder, manifest.id, name)])
                    return
            else:
                raise ChangedObjectError(f"the files of {folder} change faster than one can be deleted")

    def delete_orphaned_parts(self, path: str) -> None:
        """Delete contents at and below a path that no manifest names. Nobody may put a folder there meanwhile."""
        written: dict[tuple[str, str], list[str]] = {}
        for each in self.bucket.below(f"{PARTS}/{path}"):
            folder, _, rest = each.key.removeprefix(f"{PARTS}/").partition("/.")
            written.setdefault((folder, rest.partition("/")[0]), []).append(each.key)
        for (folder, upload), keys in written.items():
            if self.manifest(folder).id != upload:
                self.bucket.delete(keys)

    def _read(self, folder: str) -> tuple[FolderManifest, str]:
        content, etag = self.bucket.read(f"{folder}/{MANIFEST_OBJECT}")
        return msgspec.json.decode(content, type=FolderManifest), etag

    def _publish(self, folder: str, manifest: FolderManifest) -> None:
        """Write the manifest. Raises FileExistsError where there is another.

        After another OSError the manifest may have been written or not. So its parts must stay.
        """
        try:
            self.bucket.put(f"{folder}/{MANIFEST_OBJECT}", msgspec.json.encode(manifest), new=True)
        except OSError:
            # The answer to a request that succeeded may be lost. The request is sent again and finds its own manifest.
            if self.manifest(folder).id != manifest.id:
                raise

    def _discard_parts(self, folder: str, upload: str, names: Iterable[str]) -> None:
        with suppress(OSError):  # no reader sees them, and `delete_orphaned_parts` deletes them later
            self.bucket.delete(_part(folder, upload, name) for name in names)


def is_at_or_below(path: str, folder: str) -> bool:
    """Whether a key is that of a folder or of something in it."""
    return path == folder or path.startswith(f"{folder}/")


def file_digest(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _part(folder: str, upload: str, name: str) -> str:
    return f"{PARTS}/{folder}/.{upload}/{name}"


def _above(path: str) -> Iterator[str]:
    """The folders above a path, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path
