"""What a fit will take, told before it starts: rows, parameters, peak memory and time.

Work is counted from the sizes of log and catalogue and from the configuration, in three currencies; a short probe
says how fast this machine is in each. `tests/benchmarks/estimates.py` holds estimates beside measurements: they are
meant to be right within a factor of two, to tell minutes from hours and what fits into memory.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import scipy.sparse as sp

from training.dataset import Dataset
from training.measure import resident_mb
from training.models.contract import ModelConfig, RuntimeOptions
from training.splits import Split

MB = 2**20
DOUBLE_UP_TO = 4_000  # items up to which a closed form is solved in double precision
_SVD_PASSES, _SVD_EXTRA = 12, 10  # of scikit-learn's randomised singular vectors
_BACKWARD = 3  # a step forward and back costs three times the step forward
_TRIANGULAR = 1.6  # solving runs so much slower than the plain product that is probed
_PROBED = 0.05
"""Seconds that a probe of one currency takes."""


@dataclass(frozen=True)
class Sizes:
    """What decides the cost of a fit on a data set."""

    rows: int  # events
    users: int
    items: int
    known_items: int  # with an event
    pairs: int  # distinct items of users, of their newest `max_events` events
    co_pairs: int  # ordered pairs of items of one user, summed over users
    places: int  # events that histories hold

    @classmethod
    def of(cls, dataset: Dataset) -> "Sizes":
        histories = dataset.histories()
        keys = histories.rows * dataset.n_items + histories.items
        per_user = np.bincount(np.unique(keys) // dataset.n_items, minlength=dataset.n_users).astype(np.int64)
        return cls(
            rows=len(dataset.interactions),
            users=dataset.n_users,
            items=dataset.n_items,
            known_items=len(np.unique(dataset.interactions.items)),
            pairs=int(per_user.sum()),
            co_pairs=int((per_user**2).sum()),
            places=len(histories.items),
        )


@dataclass(frozen=True)
class Work:
    """What a fit does: learned numbers, its largest arrays, and operations by their kind."""

    parameters: int
    peak_bytes: float = 0.0
    flops: float = 0.0  # of dense products
    adds: float = 0.0  # of products of sparse matrices, one an entry met
    mixed: float = 0.0  # the same, of sparse matrices with dense ones
    moves: float = 0.0  # entries of large arrays that are read, sorted or written
    seconds: float = 0.0  # whatever does not depend on sizes

    def __add__(self, other: "Work") -> "Work":
        """One after the other: both learn, and the memory of the first is free again."""
        return Work(
            self.parameters + other.parameters,
            max(self.peak_bytes, other.peak_bytes),
            self.flops + other.flops,
            self.adds + other.adds,
            self.mixed + other.mixed,
            self.moves + other.moves,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Speed:
    """Operations a second of this machine."""

    flops: float
    adds: float
    mixed: float
    moves: float


@dataclass(frozen=True)
class Forecast:
    rows: int
    parameters: int
    peak_mb: float
    seconds: float

    def notes(self) -> dict[str, float]:
        """For a report, beside what is measured."""
        return {
            "rows": self.rows,
            "estimated_parameters": self.parameters,
            "estimated_peak_mb": round(self.peak_mb, 1),
            "estimated_seconds": round(self.seconds, 4),
        }


def forecast(family: str, config: ModelConfig, split: Split, options: RuntimeOptions) -> Forecast | None:
    """What measuring a configuration takes: a fit before the validation window, a refit before the test window.

    None for a family that nothing is known of, as of a plug-in. The process's memory of now is counted in.
    """
    if family not in _WORK:
        return None
    values = config.model_dump()
    earlier, later = Sizes.of(split.train), Sizes.of(split.before_test)
    first, second = (_WORK[family](sizes, values, refit) for sizes, refit in ((earlier, False), (later, True)))
    work, speed = first + second, probe(options.threads)
    seconds = work.seconds + work.flops / speed.flops + work.adds / speed.adds
    seconds += work.mixed / speed.mixed + work.moves / speed.moves
    peak_mb = resident_mb() + work.peak_bytes / MB
    return Forecast(later.rows, second.parameters, peak_mb, min(seconds, options.max_seconds))


@lru_cache
def probe(threads: int) -> Speed:
    """How fast this machine is, in a fifth of a second. threads: a key only; libraries are bounded already.

    The best of many short calls counts: other work on the machine, which comes and goes, is not part of an estimate.
    """
    rng = np.random.default_rng(0)
    square = rng.random((384, 384), dtype=np.float32)
    sparse = sp.random_array((600, 600), density=0.04, format="csr", dtype=np.float32, rng=rng)
    met = float((np.diff(sparse.tocsc().indptr).astype(np.float64) * np.diff(sparse.indptr)).sum())
    dense = rng.random((600, 64), dtype=np.float32)
    flat = rng.random(100_000, dtype=np.float32)
    return Speed(
        flops=2 * 384**3 / _quickest(lambda: square @ square),
        adds=met / _quickest(lambda: sparse @ sparse),
        mixed=sparse.nnz * 64 / _quickest(lambda: sparse @ dense),
        moves=flat.size / _quickest(lambda: np.partition(flat, 1_000)),
    )


def _quickest(work: Callable[[], Any]) -> float:
    """Seconds of the quickest call."""
    took: list[float] = []
    until = time.perf_counter() + _PROBED
    while (began := time.perf_counter()) < until or len(took) < 2:
        work()
        took.append(time.perf_counter() - began)
    return min(took)


def _vectors(sizes: Sizes, dimensions: int) -> Work:
    """Truncated singular vectors of the users-by-items matrix."""
    width = min(dimensions, sizes.users, sizes.items) + _SVD_EXTRA
    return Work(
        parameters=sizes.items * min(dimensions, sizes.users, sizes.items),
        peak_bytes=8.0 * width * (sizes.users + sizes.items) * 3,
        flops=2.0 * _SVD_PASSES * (sizes.users + sizes.items) * width**2,
        mixed=float(_SVD_PASSES * sizes.pairs * width),
    )


def _import_seconds(refit: bool) -> float:
    """Of scikit-learn's linear algebra, which the first fit of a process loads."""
    return 0.0 if refit or "sklearn.utils.extmath" in sys.modules else 0.6


def _popularity(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    return Work(sizes.items, peak_bytes=24.0 * sizes.rows, moves=20.0 * sizes.rows)


def _item_knn(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    kept = sizes.items * min(config["neighbours"], sizes.items)
    vectors = _vectors(sizes, config["dimensions"])
    cells = min(16_000_000, sizes.items**2)
    return vectors + Work(
        parameters=kept + sizes.items,
        peak_bytes=20.0 * cells + 12.0 * kept + 24.0 * sizes.places,
        adds=float(sizes.co_pairs),
        moves=35.0 * sizes.items**2 + 10.0 * sizes.places,
        seconds=_import_seconds(refit),
    )


def _solved(size: int, right: int) -> Work:
    """A symmetric system solved for so many right sides; in double precision where it is small."""
    width = 8 if size <= DOUBLE_UP_TO else 4
    flops = _TRIANGULAR * (size**3 / 3 + 2.0 * size**2 * right) * width / 4
    peak = width * (size**2 + 2.0 * size * right) + 4.0 * size * right
    return Work(size * right, peak_bytes=peak, flops=flops)


def _collaborative(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    memories = config.get("memories", ())
    if memories and sizes.items * len(memories) <= config["memory_items"]:
        longest = sizes.rows / max(sizes.users, 1) / 2  # events before an event, on average
        read = sizes.rows * sum(min(ceil(8 * half_life), longest) for half_life in memories)
        learned = _solved(sizes.items * len(memories), sizes.items) + Work(0, adds=6.0 * read, moves=2.0 * read)
    elif sizes.items <= config["closed_form_items"]:
        learned = _ease(sizes, sizes.items, config)
    else:
        learned = _factorisation(sizes, config)
        if config.get("head_items", 0):
            learned += _ease(sizes, min(config["head_items"], sizes.items), config)
    prior = Work(sizes.items, moves=10.0 * sizes.places, seconds=_import_seconds(refit))
    return learned + prior + _vectors(sizes, config["dimensions"])


def _ease(sizes: Sizes, items: int, config: Mapping[str, Any]) -> Work:
    kept = items if items <= config["dense_items"] else min(config["kept_weights"], items)
    width = 8 if items <= DOUBLE_UP_TO else 4
    return Work(
        items * kept,
        peak_bytes=3.0 * width * items**2 + 12.0 * items * kept,
        flops=_TRIANGULAR * items**3 * width / 4.0,
        adds=float(sizes.co_pairs),
        moves=6.0 * items**2,
    )


def _factorisation(sizes: Sizes, config: Mapping[str, Any]) -> Work:
    """Alternating least squares with conjugate gradients: three steps over all entries, twice an iteration."""
    width = min(config["factors"], sizes.users, sizes.items)
    return Work(
        2 * sizes.items * width,
        peak_bytes=12.0 * (sizes.users + sizes.items) * width + 24.0 * sizes.pairs,
        flops=float(config["iterations"] * 8 * (sizes.users + sizes.items) * width**2),
        mixed=float(config["iterations"] * 8 * sizes.pairs * width),
    )


def _content_based(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    width = _content_width(sizes, config["encoder"]) + 1
    fitted = Work(
        2 * sizes.items * width + width**2 + sizes.items,
        peak_bytes=24.0 * (sizes.users + sizes.items) * width,
        flops=4.0 * (sizes.users + sizes.items) * width**2,
        mixed=2.0 * sizes.pairs * width,
        moves=10.0 * sizes.places,
    )
    return _encoder(sizes, config["encoder"]) + fitted


def _content_width(sizes: Sizes, config: Mapping[str, Any]) -> int:
    """At most; fewer where the catalogue's words and labels are."""
    return min(config["text_dimensions"], sizes.items) + min(config["label_dimensions"], sizes.items)


def _encoder(sizes: Sizes, config: Mapping[str, Any]) -> Work:
    """Words are counted and thrown together. Metadata is taken to hold about twenty words an item."""
    width = _content_width(sizes, config)
    flops = 2.0 * _SVD_PASSES * (sizes.items + 5_000) * (config["text_dimensions"] + _SVD_EXTRA) ** 2
    return Work(0, flops=flops, mixed=float(_SVD_PASSES * 20 * sizes.items * width), seconds=3e-5 * sizes.items)


def _deep_learning(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    d, blocks = config["dimensions"], config["blocks"]
    length = min(config["max_length"], max(1.0, sizes.places / max(1, sizes.users)))
    network = blocks * (12 * d * d + 13 * d) + 3 * d + _content_width(sizes, config["content"]) * d
    softmax = min(sizes.known_items, config.get("candidates", sizes.known_items))
    forward = 2.0 * sizes.rows * (blocks * (12 * d * d + 2 * length * d) + softmax * d)
    epochs = config["refit_epochs"] if refit else config["epochs"] + config["refit_epochs"]
    logits = 3 * 4.0 * config["batch_size"] * length * softmax  # scores, their softmax and its gradient
    return Work(
        sizes.items * d + network,
        peak_bytes=logits + 16.0 * (sizes.items * d + network) + 24.0 * sizes.rows + 250 * MB,
        flops=epochs * _BACKWARD * forward,
        moves=epochs * _BACKWARD * sizes.rows * (softmax / 4 + blocks * 30 * d),
        seconds=0 if refit else 3,
    )


def _hybrid(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    """Every component scores every question; with fitted components there is nothing to do twice."""
    if refit:
        return Work(4, moves=500.0 * 30 * sizes.items)
    asked = min(config["max_questions"], config["questions_per_user"] * sizes.users)
    history = sizes.places / max(1, sizes.users)
    return Work(
        4,
        peak_bytes=64 * 8.0 * 4 * 4 * sizes.items + 4.0 * 4 * 400 * asked * 3,
        mixed=float(asked * history * sizes.items),
        moves=asked * (200.0 * sizes.items + 400 * 300),
    )


_WORK: dict[str, Callable[[Sizes, Mapping[str, Any], bool], Work]] = {
    "popularity": _popularity,
    "item-knn": _item_knn,
    "collaborative": _collaborative,
    "content-based": _content_based,
    "deep-learning": _deep_learning,
    "hybrid": _hybrid,
}
"""Sizes and configuration to work; the last argument says whether it is a refit of an earlier fit."""
