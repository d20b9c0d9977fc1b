"""Copies of the releases of an object store on the model server's disk, up to a size in all.

    <folder>/<tenant>/<release>/<hash of its files>/

A server that starts again finds them there. Where releases are in a local folder, none is copied.
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
    """Releases by their files. Those used longest ago go first, and all that are no longer in the store."""

    def __init__(self, home: Path, folder: Path, max_bytes: int) -> None:
        self._home = home
        self._folder = folder
        self._max_bytes = max_bytes
        self._in_use: Counter[Path] = Counter()
        self._lock = RLock()  # loads run side by side, and with the thread that looks for releases
        remove_unfinished(folder)

    @contextmanager
    def opened(self, tenant_id: str, release: str) -> Iterator[Path]:
        """A local folder of the release, which stays for as long as the block lasts.

        Raises OSError where it cannot be fetched.
        """
        place = self._folder / tenant_id / release
        with self._using(place):
            folder = open_storage(self._home).kept_copy(release_key(tenant_id, release), place)
            if folder.is_relative_to(place):
                os.utime(place)  # used now
                self._make_room(place)
            yield folder

    def follow(self, listing: StoreListing) -> None:
        """Delete the copies of releases that the store no longer has. A tenant that is unreadable now keeps its own."""
        with self._lock:
            for place in self._places():
                tenant_id, release = place.parts[-2:]
                if tenant_id not in listing.unreadable and release not in listing.releases.get(tenant_id, []):
                    self._delete(place)

    def _make_room(self, newest: Path) -> None:
        """Delete the copies used longest ago. Those in use beside the newest are not counted: they may be arriving."""
        with self._lock:
            sizes = {place: _size(place) for place in self._places() if not self._in_use[place]}
            used = {place: place.stat().st_mtime for place in sizes}
            held = sum(sizes.values()) + _size(newest)
            for place in sorted(sizes, key=used.__getitem__):
                if held > self._max_bytes and self._delete(place):
                    held -= sizes[place]

    def _places(self) -> list[Path]:
        return [place for place in self._folder.glob("*/*") if place.is_dir()]

    def _delete(self, place: Path) -> bool:
        """Delete the copies of a release, unless it is in use. Returns whether they are gone."""
        if self._in_use[place]:
            return False
        shutil.rmtree(place)
        coming = any(each.parent == place.parent for each in self._in_use)
        if not coming and not any(place.parent.iterdir()):
            place.parent.rmdir()
        return True

    @contextmanager
    def _using(self, place: Path) -> Iterator[None]:
        with self._lock:
            self._in_use[place] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_use[place] -= 1
                if not self._in_use[place]:
                    del self._in_use[place]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
