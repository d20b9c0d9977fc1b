"""The journals that a restore replays: the backup's own, and those that know what happened since."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.backup.contents import copy_file
from api.backup.making import BackupError
from configs.journal import ERASURES, REVOCATIONS, read_journal


def given_journals(path: Path) -> dict[str, Path]:
    """The journals that `--journal` names: a folder with both, or the file of erasures, beside which the other lies.

    Raises BackupError where there is no journal of erasures.
    """
    erasures = path / ERASURES if path.is_dir() else path
    if not erasures.is_file():
        raise BackupError(f"{erasures} does not exist: give the journal of erasures, or the folder that it lies in")
    revocations = erasures.with_name(REVOCATIONS)
    return {ERASURES: erasures} | ({REVOCATIONS: revocations} if revocations.is_file() else {})


def require_continuation(before: Path, after: Path) -> None:
    """Raises BackupError where `after` lacks a line of `before`: it is older, or of another installation."""
    missing = {_digest(line) for line in _lines(before)}
    for line in _lines(after):
        missing.discard(_digest(line))
    if missing:
        raise BackupError(
            f"{after} lacks {len(missing)} lines that the backup's own journal has: it is older than the backup, or of "
            "another installation"
        )


def place_journal(journal: Path, target: Path) -> None:
    """Make a journal that of a restored installation, which continues it."""
    target.unlink(missing_ok=True)
    copy_file(journal, target)


def entries_of(path: Path | None) -> Iterator[dict[str, Any]]:
    """The lines of a journal; none without one."""
    return iter(()) if path is None else read_journal(path)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()
