"""Builds the events of a snapshot in ranges of users, so that no task holds more than one range.

A tenant of any size goes through the same steps. Each is a function of a small task, which any machine that shares the
work folder can run:

1. *Plan*: find the first user of each range, so that ranges have about the same number of events. A user with as many
   events as a range has a range alone.
2. *Divide*: each task reads some rows of the lake and writes them sorted by range. Later tasks then read only the row
   groups of their own range.
3. *Refuse copies*: an interaction counts once per id, also where users in different ranges have copies of it. Each
   range writes the hashes of its ids in order. Each slice of the hashes is searched for *crossing* ones, which two
   ranges have. The rows with these hashes are compared by their ids.
4. *Build*: each range numbers its users from 0 and sorts its events.

A small tenant is one range, which is built from the lake directly. The events are the same for any choice of ranges.
Files of these steps hold ids of users. They lie in a work folder, which is deleted.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.files import atomic_file, write_text
from feature_store import columns as c
from feature_store.lake import write_parquet
from feature_store.query_database import query_database
from feature_store.range_plan import (
    Piece,
    RangeLimits,
    SliceTask,
    first_users,
    hash_slices,
    lake_pieces,
    range_number_sql,
)
from feature_store.range_queries import (
    COPIES,
    DIVIDED_ROWS,
    FIRST_COPIES,
    ID_HASH,
    LAKE_COLUMNS,
    LATER_COPIES,
    RANGE,
    RANGE_EVENTS,
    REFUSED_COPIES,
    ROWS_PER_RECORD_BATCH,
    divided_rows,
    drop_copies,
    sql_text,
)
from feature_store.schemas import LAKE_INTERACTIONS, SNAPSHOT_INTERACTIONS

Task = TypeVar("Task")
Result = TypeVar("Result")


class MapTasks(Protocol):
    """Calls a function with each task, perhaps on other machines, and yields the results in the order of the tasks.

    memory_bytes: what a task needs at most. `pipelines.compute.port.Compute.map` is one.
    """

    def __call__(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], *, memory_bytes: int | None = None
    ) -> Iterator[Result]: ...


def one_by_one(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, memory_bytes: int | None = None
) -> Iterator[Result]:
    """`MapTasks` in this process."""
    return map(function, tasks)


@dataclass(frozen=True)
class DivideTask:
    """Sorts some rows of the lake by range."""

    work: Path
    number: int
    pieces: tuple[Piece, ...]
    batch_rows: int  # of a row group that is written
    memory_bytes: int


@dataclass(frozen=True)
class RangeTask:
    """One range of users. Ranges are numbered in the order of their users."""

    work: Path
    number: int
    memory_bytes: int


@dataclass(frozen=True)
class BuiltRange:
    """The file with the events of a range (SNAPSHOT_INTERACTIONS), whose users are numbered from 0."""

    file: Path
    users: int


def whole_range(work: Path, files: Sequence[Path], memory_bytes: int) -> Iterator[pa.RecordBatch]:
    """The events of all users (SNAPSHOT_INTERACTIONS) in one range, straight from the lake.

    Args:
        work: has the catalogue (`write_catalogue`).
        files: of the lake, at least one.
    """
    with query_database(work, memory_bytes) as database:
        database.read_parquet([str(file) for file in files], hive_partitioning=False).create_view("lake")
        database.execute(f"CREATE VIEW divided AS {divided_rows(work)}")
        drop_copies(database)
        yield from database.sql(RANGE_EVENTS).to_arrow_reader(ROWS_PER_RECORD_BATCH)


def build_ranges(work: Path, files: Sequence[Path], limits: RangeLimits, run: MapTasks) -> Iterator[BuiltRange]:
    """Build the events of all ranges, and yield them in the order of users. Some ranges may have no event.

    Args:
        work: a folder that all tasks share, which holds the catalogue (`write_catalogue`) and nothing else.
        files: of the lake, at least one.
        run: runs the tasks.
    """
    groups, total = lake_pieces(files, limits.events)
    bounds = first_users(work, files, total, limits)
    write_text(work / "bounds.json", json.dumps(bounds))
    n_ranges = len(bounds) + 1
    batch_rows = max(2048, min(ROWS_PER_RECORD_BATCH, limits.events // n_ranges))
    memory = limits.memory_bytes
    divisions = [DivideTask(work, number, pieces, batch_rows, memory) for number, pieces in enumerate(groups)]
    ranges = [RangeTask(work, number, memory) for number in range(n_ranges)]
    _run_all(run(divide, divisions, memory_bytes=limits.task_bytes))
    _run_all(run(hash_ids, ranges, memory_bytes=limits.task_bytes))
    if sum(run(find_crossing, hash_slices(work, n_ranges, total, limits.events), memory_bytes=limits.task_bytes)):
        _run_all(run(collect_copies, ranges, memory_bytes=limits.task_bytes))
        _refuse(work, n_ranges, memory)
    yield from run(build_range, ranges, memory_bytes=limits.task_bytes)


def divide(task: DivideTask) -> None:
    """Write rows of the lake, with items as positions, sorted by the range of their user."""
    bounds = json.loads((task.work / "bounds.json").read_text(encoding="utf-8"))
    with query_database(task.work, task.memory_bytes) as database:
        schema = pa.schema([LAKE_INTERACTIONS.field(name) for name in LAKE_COLUMNS])
        lake = pa.RecordBatchReader.from_batches(schema, _rows_of(task.pieces, schema))
        database.register("lake", lake)
        number = range_number_sql(bounds, 0, len(bounds))
        rows = database.sql(f"SELECT *, {number} AS {RANGE} FROM ({divided_rows(task.work)})")  # noqa: S608
        batches = rows.order(RANGE).to_arrow_reader(task.batch_rows)
        write_parquet(_divided(task.work) / f"{task.number}.parquet", batches, DIVIDED_ROWS)


def hash_ids(task: RangeTask) -> None:
    """Write the distinct hashes of the range's ids, ascending: uint64 [n]."""
    with _range_database(task) as database:
        found = database.sql(f"SELECT hash({c.INTERACTION_ID}) AS {ID_HASH} FROM divided").fetchnumpy()[ID_HASH]  # noqa: S608
    _save(_hashes(task.work, task.number), np.unique(found))


def find_crossing(task: SliceTask) -> int:
    """Write the crossing hashes of the slice, uint64 [n]. Returns n."""
    parts = []
    for number in range(task.ranges):
        hashes = np.load(_hashes(task.work, number), mmap_mode="r")
        start = np.searchsorted(hashes, np.uint64(task.lower), side="left")
        end = np.searchsorted(hashes, np.uint64(task.upper), side="right")
        parts.append(np.asarray(hashes[start:end]))
    together = np.sort(np.concatenate(parts))
    crossing = np.unique(together[1:][together[1:] == together[:-1]])
    _save(task.work / "crossing" / f"{task.number}.npy", crossing)
    return len(crossing)


def collect_copies(task: RangeTask) -> None:
    """Write the range's rows with a crossing hash: for each id the row that arrived first (COPIES)."""
    with _range_database(task) as database:
        crossing = [np.load(file) for file in sorted((task.work / "crossing").glob("*.npy"))]
        database.register("crossing", pa.table({ID_HASH: np.concatenate(crossing)}))
        rows = database.sql(FIRST_COPIES).to_arrow_reader(ROWS_PER_RECORD_BATCH)
        write_parquet(_copies(task.work) / f"{task.number}.parquet", rows, COPIES)


def build_range(task: RangeTask) -> BuiltRange:
    """Write the events of the range, with users numbered from 0."""
    file = task.work / "events" / f"{task.number}.parquet"
    with _range_database(task) as database:
        n_users = drop_copies(database)
        events = database.sql(RANGE_EVENTS).to_arrow_reader(ROWS_PER_RECORD_BATCH)
        write_parquet(file, events, SNAPSHOT_INTERACTIONS)
    return BuiltRange(file, n_users)


def renumbered(built: BuiltRange, first_user: int) -> Iterator[pa.RecordBatch]:
    """The events of a range (SNAPSHOT_INTERACTIONS), with users numbered from `first_user`."""
    at = SNAPSHOT_INTERACTIONS.get_field_index(c.USER)
    with pq.ParquetFile(built.file) as parquet:
        for batch in parquet.iter_batches(ROWS_PER_RECORD_BATCH):
            users = pc.add(batch.column(at), pa.scalar(first_user, pa.int32()))
            yield batch.set_column(at, SNAPSHOT_INTERACTIONS.field(at), users)


@contextmanager
def _range_database(task: RangeTask) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the view `divided` of the rows of one range, without the copies that are refused."""
    with query_database(task.work, task.memory_bytes) as database:
        files = [str(file) for file in _divided(task.work).glob("*.parquet")]
        database.read_parquet(files).create_view("rows_of_all")
        rows = f"SELECT * FROM rows_of_all WHERE {RANGE} = {task.number:d}"  # noqa: S608
        if _refused(task.work).exists():
            refused = f"read_parquet({sql_text(str(_refused(task.work)))}) WHERE {RANGE} = {task.number:d}"
            rows += f" AND {c.INTERACTION_ID} NOT IN (SELECT {c.INTERACTION_ID} FROM {refused})"  # noqa: S608
        database.execute(f"CREATE VIEW divided AS {rows}")
        yield database


def _rows_of(pieces: Iterable[Piece], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        with pq.ParquetFile(piece.file) as parquet:
            numbers = list(range(piece.first, piece.end))
            for batch in parquet.iter_batches(ROWS_PER_RECORD_BATCH, row_groups=numbers, columns=schema.names):
                yield batch.select(schema.names).cast(schema)


def _refuse(work: Path, n_ranges: int, memory_bytes: int) -> None:
    """Write which copies are refused: of each id, those of all ranges but the one with the first row."""
    with query_database(work, memory_bytes) as database:
        files = [str(_copies(work) / f"{number}.parquet") for number in range(n_ranges)]
        database.read_parquet(files).create_view("copies")
        write_parquet(_refused(work), database.sql(LATER_COPIES).to_arrow_reader(ROWS_PER_RECORD_BATCH), REFUSED_COPIES)


def _run_all(results: Iterable[None]) -> None:
    for _ in results:
        pass


def _save(path: Path, array: npt.NDArray[np.uint64]) -> None:
    with atomic_file(path) as file, file.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _divided(work: Path) -> Path:
    return work / "divided"


def _hashes(work: Path, number: int) -> Path:
    return work / "hashes" / f"{number}.npy"


def _copies(work: Path) -> Path:
    return work / "copies"


def _refused(work: Path) -> Path:
    return work / "refused.parquet"
