"""Divides the work on a snapshot: which rows of the lake, ranges of users and slices of hashes each task takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq

from feature_store import columns as c
from feature_store.query_database import query_database
from feature_store.range_queries import sql_text

_MAX_PIECES = 2_000
"""Pieces of files in one task, a bound on what is sent with it."""

_BOUNDS = f"""
WITH counted AS (SELECT {c.USER_ID}, count(*) AS n FROM lake GROUP BY ALL),
placed AS (SELECT {c.USER_ID}, n, (sum(n) OVER (ORDER BY {c.USER_ID}) - n) // $share AS share FROM counted),
compared AS (
    SELECT *, lag(share) OVER following AS share_before, lag(n) OVER following AS n_before
    FROM placed WINDOW following AS (ORDER BY {c.USER_ID})
)
SELECT {c.USER_ID} FROM compared
WHERE share_before IS NOT NULL AND (share > share_before OR n >= $share OR n_before >= $share) ORDER BY {c.USER_ID}
"""  # noqa: S608 - constants of this code base


@dataclass(frozen=True)
class RangeLimits:
    """The size of ranges of users, and the memory of a task. Neither changes the events of a snapshot."""

    events: int = 4_000_000  # of a range, about; a tenant with no more is one range
    memory_bytes: int = 2 << 30  # of the database of a task; its process takes about half a gigabyte more

    @property
    def task_bytes(self) -> int:
        """The memory of a process that runs a task."""
        return self.memory_bytes + (1 << 30)


DEFAULT_LIMITS = RangeLimits()


@dataclass(frozen=True)
class Piece:
    """Some row groups of a file of the lake."""

    file: Path
    first: int
    end: int  # exclusive


@dataclass(frozen=True)
class SliceTask:
    """Finds the hashes `lower <= hash <= upper` that several ranges have."""

    work: Path
    number: int
    ranges: int
    lower: int
    upper: int


def lake_pieces(files: Sequence[Path], n_rows: int) -> tuple[list[tuple[Piece, ...]], int]:
    """All row groups of the files, divided into groups of about `n_rows` rows, and the number of all rows."""
    groups: list[tuple[Piece, ...]] = []
    group: list[Piece] = []
    total = filled = 0
    for file in files:
        metadata = pq.read_metadata(file)
        first = 0
        for number in range(metadata.num_row_groups):
            filled += metadata.row_group(number).num_rows
            last_of_file = number + 1 == metadata.num_row_groups
            full = filled >= n_rows or len(group) + 1 >= _MAX_PIECES
            if full or last_of_file:
                group.append(Piece(file, first, number + 1))
                first = number + 1
            if full:
                groups.append(tuple(group))
                group, filled = [], 0
        total += metadata.num_rows
    return [*groups, tuple(group)] if group else groups, total


def first_users(work: Path, files: Sequence[Path], total: int, limits: RangeLimits) -> list[str]:
    """The first users of all ranges but the first, ascending."""
    share = max(1, math.ceil(total / max(1, math.ceil(total / limits.events))))
    with query_database(work, limits.memory_bytes) as database:
        database.read_parquet([str(file) for file in files], hive_partitioning=False).create_view("lake")
        return [user for (user,) in database.execute(_BOUNDS, {"share": share}).fetchall()]


def range_number_sql(bounds: Sequence[str], lowest: int, highest: int) -> str:
    """SQL: the number of the user's range, from `lowest` to `highest`, by binary search in the ranges' first users."""
    if lowest == highest:
        return f"{lowest}::INTEGER"
    middle = (lowest + highest) // 2
    lower, upper = range_number_sql(bounds, lowest, middle), range_number_sql(bounds, middle + 1, highest)
    return f"CASE WHEN {c.USER_ID} < {sql_text(bounds[middle])} THEN {lower} ELSE {upper} END"


def hash_slices(work: Path, n_ranges: int, total: int, events: int) -> list[SliceTask]:
    """Tasks that together cover all hashes; each has about as many hashes as a range has events."""
    n_slices = max(1, math.ceil(total / events))
    edges = [(number << 64) // n_slices for number in range(n_slices + 1)]
    return [
        SliceTask(work, number, n_ranges, lower, upper - 1) for number, (lower, upper) in enumerate(pairwise(edges))
    ]
