"""Copies of the releases of an object store on the model server's disk, up to a size in all.

    <folder>/<tenant>/<release>/<hash of its files>/

A server that starts again finds them there. Releases in a local folder are not copied.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from configs.files import remove_unfinished
from configs.storage import open_storage
from serving.contracts.releases import StoreListing, release_key


class ReleaseCache:
    """Copies of releases. Those used longest ago are deleted for room, and all that the store no longer has."""

    def __init__(self, home: Path, folder: Path, max_bytes: int) -> None:
        """home: where the releases are, `PathSettings.bentoml`. folder: of this machine, for the copies."""
        self._home = home
        self._folder = folder
        self._max_bytes = max_bytes
        self._in_use: Counter[Path] = Counter()  # by folder of a release
        self._lock = RLock()  # several threads load releases, and another one polls for new ones
        remove_unfinished(folder)

    @contextmanager
    def opened(self, tenant_id: str, release: str) -> Iterator[Path]:
        """A local folder of the release, which stays for as long as the block lasts.

        Raises OSError where it cannot be fetched.
        """
        parent = self._folder / tenant_id / release
        with self._using(parent):
            folder = open_storage(self._home).kept_copy(release_key(tenant_id, release), parent)
            if folder.is_relative_to(parent):
                os.utime(parent)  # the time of its last use
                self._make_room(parent)
            yield folder

    def delete_unlisted(self, listing: StoreListing) -> None:
        """Delete the copies of releases that the store no longer has, except of tenants that it could not read."""
        with self._lock:
            for parent in self._releases():
                tenant_id, release = parent.parts[-2:]
                if tenant_id not in listing.unreadable and release not in listing.releases.get(tenant_id, []):
                    self._delete(parent)

    def _make_room(self, newest: Path) -> None:
        """Delete the copies used longest ago. Others in use are not counted, because they may still be fetched."""
        with self._lock:
            sizes = {release: _size(release) for release in self._releases() if not self._in_use[release]}
            used_at = {release: release.stat().st_mtime for release in sizes}
            held = sum(sizes.values()) + _size(newest)
            for release in sorted(sizes, key=used_at.__getitem__):
                if held > self._max_bytes and self._delete(release):
                    held -= sizes[release]

    def _releases(self) -> list[Path]:
        """The folders of releases that have copies."""
        return [folder for folder in self._folder.glob("*/*") if folder.is_dir()]

    def _delete(self, release: Path) -> bool:
        """Delete the folder of a release, unless it is in use. Returns whether it is gone."""
        if self._in_use[release]:
            return False
        shutil.rmtree(release)
        tenant_in_use = any(each.parent == release.parent for each in self._in_use)
        if not tenant_in_use and not any(release.parent.iterdir()):
            release.parent.rmdir()
        return True

    @contextmanager
    def _using(self, release: Path) -> Iterator[None]:
        with self._lock:
            self._in_use[release] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_use[release] -= 1
                if not self._in_use[release]:
                    del self._in_use[release]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
