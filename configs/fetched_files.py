"""Copies of objects on the disk of this machine, for as long as the process runs.

They may hold events of users. So they lie in a scratch folder, which is deleted when the process ends. Where the
process was killed, the next one deletes it.
"""

import atexit
import errno
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import RLock
from uuid import uuid4

from configs.files import scratch_folder
from configs.state_settings import StateSettings

IN_USE_SECONDS = 3_600.0
"""A copy that was asked for within this time may be in use, and is not deleted to make room."""


@dataclass
class _Copy:
    etag: str
    size: int
    used_at: float


class FetchedFiles:
    """Copies by key, up to a size in all. Those that were asked for longest ago are deleted first."""

    def __init__(self, parent: Path, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._open = ExitStack()
        self.folder = self._open.enter_context(scratch_folder(parent))
        self._max_bytes = max_bytes
        self._clock = clock
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._lock = RLock()

    def path(self, key: str) -> Path:
        """Where the copy of this key lies, if there is one."""
        return self.folder / "objects" / key

    def new_path(self) -> Path:
        """A new path, in a folder that exists, for a file that is being fetched or is about to be put."""
        (self.folder / "incomplete").mkdir(exist_ok=True)
        return self.folder / "incomplete" / uuid4().hex

    def get(self, key: str, etag: str, size: int, fetch: Callable[[Path], None]) -> Path:
        """The copy of the object with this ETag. Where there is none, `fetch` writes it to the path that it gets.

        Args:
            size: bytes of the object.

        Raises OSError where there is no room for it beside the copies that may be in use.
        """
        with self._lock:
            known = self._copies.get(key)
            if known is not None and known.etag == etag:
                known.used_at = self._clock()
                self._copies.move_to_end(key)
                return self.path(key)
            self.drop(key)
            self._make_room(size)
            copy = self._copies[key] = _Copy("", size, self._clock())  # takes its room before it is fetched
        incomplete = self.new_path()
        try:
            fetch(incomplete)
            with self._lock:
                self.path(key).parent.mkdir(parents=True, exist_ok=True)
                incomplete.replace(self.path(key))
                self._copies[key] = copy
                copy.etag = etag
        finally:
            incomplete.unlink(missing_ok=True)
            with self._lock:
                if not copy.etag and self._copies.get(key) is copy:
                    del self._copies[key]
        return self.path(key)

    def drop(self, key: str) -> None:
        """Delete the copy of this key, and those below it."""
        with self._lock:
            for each in [each for each in self._copies if each == key or each.startswith(f"{key}/")]:
                del self._copies[each]
                self.path(each).unlink(missing_ok=True)
            if self.path(key).is_dir():
                shutil.rmtree(self.path(key))  # empty folders, whose names may be ids of tenants

    def keep_only(self, key: str, keys: set[str]) -> None:
        """Delete the copies at and below a key that are not among these."""
        with self._lock:
            for each in [each for each in self._copies if f"{each}/".startswith(f"{key}/") and each not in keys]:
                self.drop(each)

    def close(self) -> None:
        """Delete all copies."""
        self._open.close()

    def _make_room(self, size: int) -> None:
        held = sum(copy.size for copy in self._copies.values())
        for key, copy in list(self._copies.items()):
            if held + size <= self._max_bytes or self._clock() - copy.used_at < IN_USE_SECONDS:
                break
            held -= copy.size
            self.drop(key)
        if held + size > self._max_bytes:
            raise OSError(errno.ENOSPC, "files of the object store need more disk: raise STATE_FETCHED_BYTES")


@cache
def fetched_files(parent: Path) -> FetchedFiles:
    """The copies of this process, in a scratch folder in `parent`."""
    files = FetchedFiles(parent, StateSettings().fetched_bytes)
    atexit.register(files.close)
    return files
