"""Processor time of the demo's programs, from /proc.

A program's first process has a mark in its environment (`configs.local.launch`), by which it is found; its workers, the
backends of PostgreSQL and whatever else it starts are its descendants. (They inherit the mark, but those of another
user cannot always be read.) The time of a process that has ended is in that of the parent which waited for it.
"""

import os
from pathlib import Path

from configs.local.launch import survivors
from configs.settings import PathSettings

TICKS = os.sysconf("SC_CLK_TCK")
PROGRAMS = {"api": "API", "serving": "model server", "postgres": "PostgreSQL"}
"""The programs that answer a request, and what they are called."""


def seconds_of(process: int) -> float:
    """User and system time of a process and of its ended children; 0 where it has just ended itself."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = stat.rpartition(")")[2].split()  # the name in brackets may hold spaces; fields[0] is field 3, the state
    return sum(map(int, fields[11:15])) / TICKS


def memory_of(process: int) -> int:
    """Bytes of memory that are the process's alone and in use, without what it shares with others."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def processes(paths: PathSettings, program: str) -> list[int]:
    """Ids of a program's processes."""
    found = survivors(f"{program}@{paths.root}")
    children = _children()
    for process in found:  # grows while it is read
        found += [child for child in children.get(process, []) if child not in found]
    return found


def _children() -> dict[int, list[int]]:
    """The ids of all processes by that of their parent."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            found.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    return found


def program_seconds(paths: PathSettings) -> dict[str, float]:
    """Processor seconds so far of each of `PROGRAMS`."""
    return {program: sum(map(seconds_of, processes(paths, program))) for program in PROGRAMS}
