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
from threading import Lock

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
        self._lock = Lock()
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
                self._make_room()
            yield folder

    def follow(self, listing: StoreListing) -> None:
        """Delete the copies of releases that the store no longer has. A tenant that is unreadable now keeps its own."""
        for place in self._places():
            tenant_id, release = place.parts[-2:]
            if tenant_id not in listing.unreadable and release not in listing.releases.get(tenant_id, []):
                self._delete(place)

    def _make_room(self) -> None:
        sizes = {place: _size(place) for place in self._places()}
        held = sum(sizes.values())
        for place in sorted(sizes, key=lambda place: place.stat().st_mtime):
            if held > self._max_bytes and self._delete(place):
                held -= sizes[place]

    def _places(self) -> list[Path]:
        return [place for place in self._folder.glob("*/*") if place.is_dir()]

    def _delete(self, place: Path) -> bool:
        """Delete the copies of a release, unless it is in use. Returns whether they are gone."""
        with self._lock:
            if self._in_use[place]:
                return False
            shutil.rmtree(place)
        if not any(place.parent.iterdir()):
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
