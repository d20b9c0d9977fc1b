"""Memory-mapped columns of events, so that a large log does not have to fit in the memory of a process.

The system reads pages when they are used, and drops them when memory is short. Processes of a machine that map the same
file share its pages. The files are `.npy`, one for each column of `schemas.SNAPSHOT_INTERACTIONS`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from configs.storage import open_storage
from feature_store import schemas
from feature_store.snapshot_files import snapshot_parts

MAPPED_FROM = 5_000_000
"""Number of events from which on columns are mapped. Fewer take at most 105 MB, and are read into memory faster."""

_FOLDER = "columns"
_BATCH = 1 << 18
"""Events that are held at a time while columns are written."""
_DTYPES = {field.name: np.dtype(field.type.to_pandas_dtype()) for field in schemas.SNAPSHOT_INTERACTIONS}

Columns = tuple[npt.NDArray[Any], ...]
"""One array for each column of `schemas.SNAPSHOT_INTERACTIONS`, in its order."""


def snapshot_columns(folder: Path) -> Columns:
    """The mapped columns of the snapshot in `folder`. The first call writes them, also of concurrent ones.

    They lie in the snapshot's folder and are deleted with it, which an erasure of a user does.

    Raises:
        FileNotFoundError: the snapshot was deleted.
        ValueError: a column is missing.
    """
    storage, key = open_storage(folder.parent), f"{folder.name}/{_FOLDER}"
    if not storage.exists(key):
        with storage.lock():  # so that the snapshot is not deleted meanwhile, which would leave its columns behind
            if not storage.exists(key):
                parts = snapshot_parts(folder)
                for part in parts:
                    check_columns(pq.read_schema(part).names, part)
                with storage.put_folder(key) as new:
                    write_columns(new, sum(pq.read_metadata(part).num_rows for part in parts), _batches(parts))
    return map_columns(storage.local(key))


def check_columns(found: Sequence[str], path: Path, schema: Any = schemas.SNAPSHOT_INTERACTIONS) -> None:
    """Raise ValueError where the table of a snapshot at `path` lacks a column of its schema. found: its columns."""
    if missing := set(schema.names) - set(found):
        raise ValueError(f"{path}: columns {sorted(missing)} are missing")


def write_columns(folder: Path, n_events: int, parts: Iterable[Sequence[npt.NDArray[Any]]]) -> None:
    """Write the columns of `n_events` events to files in `folder`.

    Args:
        parts: the columns of successive events, such as those of one record batch.

    Raises ValueError where the parts have another number of events.
    """
    files = [(folder / f"{name}.npy").open("wb") for name in _DTYPES]
    written = 0
    try:
        for file, dtype in zip(files, _DTYPES.values(), strict=True):
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n_events,)}
            np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            for file, dtype, column in zip(files, _DTYPES.values(), part, strict=True):
                file.write(np.ascontiguousarray(column, dtype).data)
            written += len(part[0])
    finally:
        for file in files:
            file.close()
    if written != n_events:
        raise ValueError(f"{folder}: {written} events were written in place of {n_events}")


def map_columns(folder: Path) -> Columns:
    """The columns that `write_columns` wrote, read-only. They stay readable after the files were deleted.

    Raises FileNotFoundError where a file is missing.
    """
    return tuple(np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in _DTYPES)


def sliced(columns: Columns) -> Iterable[Columns]:
    """The columns in slices of at most 262,144 events, as `write_columns` takes them."""
    for start in range(0, len(columns[0]), _BATCH):
        yield tuple(column[start : start + _BATCH] for column in columns)


def selected(columns: Columns, mask: npt.NDArray[np.bool_], folder: Path) -> Columns:
    """The columns of the events under a mask, mapped from temporary files without a name.

    No other process can open such a file, and the system deletes it with the last array on it, however the process
    ends. So it keeps nothing of an erased user.

    Args:
        mask: bool [n], true for one event at least.
        folder: a folder on the file system that the files lie on.
    """
    n_events = int(np.count_nonzero(mask))
    return tuple(_selected(column, mask, n_events, folder) for column in columns)


def _selected(column: npt.NDArray[Any], mask: npt.NDArray[np.bool_], n_events: int, folder: Path) -> npt.NDArray[Any]:
    file: IO[bytes]
    with TemporaryFile(dir=folder) as file:
        for start in range(0, len(mask), _BATCH):
            part = slice(start, start + _BATCH)
            file.write(column[part][mask[part]].data)
        file.flush()
        return np.asarray(np.memmap(file, column.dtype, "r", shape=(n_events,)))


def _batches(parts: Sequence[Path]) -> Iterable[Columns]:
    schema = schemas.SNAPSHOT_INTERACTIONS
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(_BATCH, columns=schema.names):
                yield tuple(batch[field.name].cast(field.type).to_numpy() for field in schema)
