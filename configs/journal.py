"""Journals: what must not be forgotten where the database is lost and an older copy of it takes its place.

A journal is a file of JSON lines in the folder `journal` of the state folder. A line is on disk before the transaction
that it is about commits, so that a crash between the two loses nothing: at worst the journal holds what never happened,
which a restore then does. Lines are only ever added. Another folder, on another disk or machine, gets a copy.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from configs.files import PRIVATE, sync
from configs.settings import Settings

ERASURES = "erasures.jsonl"
REVOCATIONS = "revocations.jsonl"
_CHUNK = 1 << 20
_COMPARED = 1 << 16
"""Bytes before the end of a copy that are compared before it is continued."""


class JournalSettings(Settings):
    """The second place of the journals of erasures and of revoked keys."""

    copy_folder: Path | None = Field(
        default=None,
        alias="JOURNAL_COPY_DIR",
        description="a folder on another disk or machine, of this installation alone; None: no copy is made",
    )


class DamagedJournalError(ValueError):
    """A line of a journal cannot be read. The message names file and line, and not what they hold."""


class AnotherJournalError(ValueError):
    """The copy of a journal holds other lines than the journal, so that it cannot be continued."""


class Journal:
    """One journal and its copy. Processes that write at once take turns."""

    def __init__(self, path: Path, copy_folder: Path | None = None) -> None:
        self.path = path
        self._copy = None if copy_folder is None else copy_folder / path.name

    def append(self, entries: Iterable[Mapping[str, str | None]]) -> None:
        """Add lines; they are on disk when this returns. Raises OSError where they cannot be written."""
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        with _exclusive(self.path) as file:
            # What a crash left of a line belongs to a transaction that did not commit.
            file.truncate(_complete_bytes(file))
            file.seek(0, os.SEEK_END)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def copy(self) -> None:
        """Bring the copy up to date. It takes no lock of the journal, so that a disk that hangs keeps nobody waiting.

        Raises AnotherJournalError where the copy is not the beginning of the journal, OSError where it is out of reach.
        """
        if self._copy is None or not self.path.exists():
            return
        with self.path.open("rb") as journal, _exclusive(self._copy) as copy:
            copied, complete = copy.seek(0, os.SEEK_END), _complete_bytes(journal)
            journal.seek(max(0, copied - _COMPARED))
            copy.seek(max(0, copied - _COMPARED))
            if copied > complete or journal.read(min(copied, _COMPARED)) != copy.read():
                raise AnotherJournalError(
                    f"{self._copy} is not a copy of {self.path}: move it away and keep it, or give this installation "
                    "a folder of its own in JOURNAL_COPY_DIR"
                )
            if copied == complete:
                return
            while left := complete - journal.tell():
                copy.write(journal.read(min(left, _CHUNK)))
            copy.flush()
            os.fsync(copy.fileno())

    def entries(self) -> Iterator[dict[str, Any]]:
        """The lines; none where there is no journal."""
        return read_journal(self.path) if self.path.exists() else iter(())


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal. A last line without an end is left out, because its transaction did not commit.

    Raises DamagedJournalError for any other line that is no JSON object.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                raise DamagedJournalError(f"{path}: line {number} is damaged")
            yield entry


@contextmanager
def _exclusive(path: Path) -> Iterator[Any]:
    """The file, made private where it is missing, opened to read and write by this process alone."""
    made = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if made:
            sync(path.parent)
        yield file


def _complete_bytes(file: Any) -> int:
    """Bytes up to the end of the last complete line."""
    end: int = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _COMPARED)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
