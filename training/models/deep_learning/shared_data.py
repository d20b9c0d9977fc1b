"""What the processes of one fit read from files instead of receiving it: events, content of items, id embeddings.

The first process writes them into a scratch folder, which is deleted when the fit ends; a folder that a killed process
left is deleted by the next computation beside it. All processes map the files, so that those of one machine hold the
pages once. Processes on several machines need a folder that all of them reach.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import numpy as np

from configs.storage import open_storage
from training.data.dataset import Dataset, Interactions, ItemTable
from training.data.mapped_columns import map_columns, sliced, write_columns
from training.models.contract import FloatMatrix

_CONTENT, _IDS = "content.npy", "ids.npy"
_ROWS = 1 << 14
"""Items whose rows are held at a time while they are written."""


@dataclass(frozen=True)
class FitData:
    """What one run of the training loop learns from."""

    dataset: Dataset
    content: FloatMatrix  # [n_items, content_width]
    ids: FloatMatrix | None  # [n_items, d] to start from; None: start anew

    def open(self) -> "FitData":
        """As `SharedData.open`."""
        return self


@dataclass(frozen=True)
class SharedData:
    """Where a fit's data lie. It is small, however many events there are, so it can be sent."""

    folder: Path
    n_users: int
    n_items: int
    has_ids: bool

    def open(self) -> FitData:
        """The data, mapped from the files. The item table is empty: the training loop reads its size alone."""
        nothing = np.broadcast_to(np.array("", dtype=object), self.n_items)
        items = ItemTable(nothing, [], np.broadcast_to(np.array(True), self.n_items))
        return FitData(
            Dataset(Interactions(*map_columns(self.folder)), items, self.n_users),
            _mapped(self.folder / _CONTENT),
            _mapped(self.folder / _IDS) if self.has_ids else None,
        )


@contextmanager
def shared_data(data: FitData, workdir: Path | None = None) -> Iterator[SharedData]:
    """Write the data into files that exist within the block.

    They lie beside the snapshot that the events come from, else in the working folder, else in a temporary one.
    """
    spool = data.dataset.interactions.spool
    with open_storage(spool or workdir or Path(gettempdir())).scratch_folder() as folder:
        yield written_data(data, folder)


def written_data(data: FitData, folder: Path) -> SharedData:
    """Write the data into this folder."""
    dataset = data.dataset
    events = dataset.interactions
    write_columns(folder, len(events), sliced(events.columns))
    _write(folder / _CONTENT, data.content)
    if data.ids is not None:
        _write(folder / _IDS, data.ids)
    return SharedData(folder, dataset.n_users, dataset.n_items, data.ids is not None)


def _write(path: Path, rows: FloatMatrix) -> None:
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(rows.dtype), "fortran_order": False, "shape": rows.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(rows), _ROWS):
            file.write(np.ascontiguousarray(rows[start : start + _ROWS]).data)


def _mapped(path: Path) -> FloatMatrix:
    """The rows of a file. torch wants rows that can be written to; that would change them for this process alone."""
    return np.asarray(np.load(path, mmap_mode="c"))
