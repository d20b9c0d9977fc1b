"""What a backup holds, with a checksum of every file, which is verified when it is made and before it is restored."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.files import write_private

MANIFEST = "manifest.json"
_CHECKSUM = "manifest.sha256"
FORMAT = 1


class BrokenBackupError(ValueError):
    """A folder is no complete backup. The message names the file."""


@dataclass(frozen=True)
class Manifest:
    """Describes a backup."""

    format: int
    started_at: str  # RFC 3339, UTC; what happened later may be missing
    state_dir: str  # where the installation had its state
    revision: str  # of the database's schema
    postgres: str  # version of the server
    files: dict[str, str]  # path -> SHA-256


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, and its own checksum beside it."""
    text = json.dumps(asdict(manifest), indent=1)
    write_private(folder / MANIFEST, text)
    write_private(folder / _CHECKSUM, hashlib.sha256(text.encode()).hexdigest() + "\n")


def verified_manifest(folder: Path, progress: Callable[[str], object] = str) -> Manifest:
    """The manifest of a backup, whose every file was read. Raises BrokenBackupError where one is not what it was."""
    path = folder / MANIFEST
    if not path.exists() or not (folder / _CHECKSUM).exists():
        raise BrokenBackupError(f"{folder} is no backup, or not a complete one: it has no {MANIFEST} with a checksum")
    if checksum(path) != (folder / _CHECKSUM).read_text().strip():
        raise BrokenBackupError(f"{path} is damaged")
    document = json.loads(path.read_text())
    if document["format"] != FORMAT:
        raise BrokenBackupError(f"{path} has format {document['format']}; this version restores format {FORMAT}")
    manifest = Manifest(**document)
    present = {str(file.relative_to(folder)) for file in files_below(folder)} - {MANIFEST, _CHECKSUM}
    if differing := sorted(present ^ set(manifest.files)):
        state = "is missing" if differing[0] in manifest.files else "does not belong to the backup"
        raise BrokenBackupError(f"{folder / differing[0]} {state}")
    for name, expected in manifest.files.items():
        progress(name)
        if checksum(folder / name) != expected:
            raise BrokenBackupError(f"{folder / name} is damaged: its checksum is another than when it was made")
    return manifest


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder and of those in it."""
    return (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def checksum(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
