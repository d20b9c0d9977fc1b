"""What the peers are given and what comes back: queries as Parquet files, scores as one matrix.

The folder holds the log before each window and the evaluated users. Of the validation window it holds the targets
too, for tuning; those of the test window stay here. Peers work by position: ids mean nothing to them.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from feature_store.online import Histories
from training.data.dataset import Dataset
from training.data.splits import Split
from training.models.contract import FloatMatrix

FACTS = "split.json"


def export(split: Split, folder: Path) -> Path:
    """Write the queries of a split into `folder`, once, and return it. `FACTS` is written last."""
    if (folder / FACTS).exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _write_log(split.train, folder / "train.parquet")
    _write_log(split.before_test, folder / "before_test.parquet")
    for name, holdout in (("validation", split.validation), ("test", split.test)):
        pq.write_table(pa.table({"user": holdout.users}), folder / f"{name}_users.parquet")
    _write_pairs(split.validation.targets, folder / "validation_targets.parquet")
    _write_pairs(split.validation.masked, folder / "validation_masked.parquet")
    facts = {
        "n_users": split.before_test.n_users,
        "n_items": split.before_test.n_items,
        "temporal": split.known_until is not None,
        "repeats": split.mask != "all",
        "protocol": split.protocol,
        "split_hash": split.hash,
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=2))
    return folder


def _write_log(dataset: Dataset, path: Path) -> None:
    events = dataset.interactions
    pq.write_table(pa.table({"user": events.users, "item": events.items, "timestamp": events.timestamps}), path)


def _write_pairs(matrix: sp.csr_array, path: Path) -> None:
    pairs = matrix.tocoo()
    pq.write_table(pa.table({"row": pairs.row.astype(np.int32), "item": pairs.col.astype(np.int32)}), path)


class Replay:
    """Scores that were computed elsewhere, in the place of a model in `training.evaluation.report`.

    An evaluation scores every query once, in order; each call takes the next rows of the matrix.
    """

    def __init__(self, family: str, scores: npt.NDArray[np.float32]) -> None:
        """scores: float32 [n_queries, n_items], finite."""
        self.family = family
        self._scores = scores
        self._next = 0

    @classmethod
    def read(cls, family: str, path: Path, split: Split) -> "Replay":
        """The matrix of a peer. Raises ValueError where it does not belong to the split's test window."""
        scores = np.load(path, mmap_mode="r", allow_pickle=False)
        expected = (len(split.test), split.before_test.n_items)
        if scores.shape != expected or scores.dtype != np.float32:
            raise ValueError(f"{path}: holds {scores.dtype} {scores.shape}, not float32 {expected}")
        return cls(family, scores)

    def score(self, histories: Histories) -> FloatMatrix:
        start, self._next = self._next, self._next + len(histories)
        if self._next > len(self._scores):
            raise ValueError(f"{self.family}: more queries than the {len(self._scores)} that have scores")
        return np.array(self._scores[start : self._next])
