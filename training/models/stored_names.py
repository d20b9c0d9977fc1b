"""Reading what earlier versions saved: present names of stored keys, and files that were renamed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def present_names(stored: Mapping[str, Any], earlier: Mapping[str, str]) -> dict[str, Any]:
    """The stored values by their present names. earlier: earlier name -> present name; other names stay."""
    return {earlier.get(name, name): value for name, value in stored.items()}


def stored_file(folder: Path, name: str, earlier: str) -> Path:
    """The file under its present name, or under its earlier one where only that exists."""
    path = folder / name
    return path if path.exists() else folder / earlier
