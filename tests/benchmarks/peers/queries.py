"""What a peer is given: a log by position, and queries of its users. Reads what `quality.exchange` wrote."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp


@dataclass(frozen=True)
class Log:
    """Events sorted by (user, timestamp), of `n_users` users with `n_items` items."""

    users: np.ndarray  # int32 [n]
    items: np.ndarray  # int32 [n]
    timestamps: np.ndarray  # int64 [n] microseconds, or positions where the data has no clock
    n_users: int
    n_items: int

    @cached_property
    def counts(self) -> sp.csr_matrix:
        """float32 [n_users, n_items]: how often."""
        shape = (self.n_users, self.n_items)
        return sp.coo_matrix((np.ones(len(self.users), np.float32), (self.users, self.items)), shape=shape).tocsr()

    @cached_property
    def binary(self) -> sp.csr_matrix:
        """float32 [n_users, n_items]: whether."""
        matrix = self.counts.copy()
        matrix.data[:] = 1
        return matrix


@dataclass(frozen=True)
class Queries:
    """One folder that was exported. The targets of the test window are not in it."""

    train: Log
    validation_users: np.ndarray  # int32 [n]
    validation_targets: sp.csr_matrix  # [n, n_items]
    validation_masked: sp.csr_matrix  # [n, n_items]
    before_test: Log
    test_users: np.ndarray  # int32 [m]
    temporal: bool  # one cut in time for all users, so that what is recent is so for everybody
    repeats: bool  # what a user had before may be recommended again


def read_queries(folder: Path) -> Queries:
    facts = json.loads((folder / "split.json").read_text())
    n_users, n_items = facts["n_users"], facts["n_items"]

    def log(name: str) -> Log:
        table = pq.read_table(folder / f"{name}.parquet")
        return Log(*(table[column].to_numpy() for column in ("user", "item", "timestamp")), n_users, n_items)

    def users(name: str) -> np.ndarray:
        return pq.read_table(folder / f"{name}.parquet")["user"].to_numpy()

    def pairs(name: str, n_rows: int) -> sp.csr_matrix:
        table = pq.read_table(folder / f"{name}.parquet")
        rows, items = table["row"].to_numpy(), table["item"].to_numpy()
        return sp.coo_matrix((np.ones(len(rows), np.float32), (rows, items)), shape=(n_rows, n_items)).tocsr()

    evaluated = users("validation_users")
    return Queries(
        train=log("train"),
        validation_users=evaluated,
        validation_targets=pairs("validation_targets", len(evaluated)),
        validation_masked=pairs("validation_masked", len(evaluated)),
        before_test=log("before_test"),
        test_users=users("test_users"),
        temporal=facts["temporal"],
        repeats=facts["repeats"],
    )


def ndcg(scores: np.ndarray, targets: sp.csr_matrix, masked: sp.csr_matrix, k: int = 10) -> np.ndarray:
    """NDCG@k of each row, float64 [n], for the choice of hyper-parameters. scores: float32 [n, n_items]."""
    scores = np.where(masked.toarray() > 0, -np.inf, scores)
    k = min(k, scores.shape[1])
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable"), axis=1)
    hits = np.take_along_axis(targets.toarray() > 0, top, axis=1)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(np.diff(targets.indptr), k) - 1]
    return (hits * discounts).sum(axis=1) / ideal
