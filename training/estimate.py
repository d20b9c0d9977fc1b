"""What a fit will take, told before it starts: rows, parameters, peak memory and time.

`training.workload` counts the work in five currencies; a short probe says how fast this machine is in each.
`tests/benchmarks/estimates.py` holds estimates beside measurements: they are meant to be right within a factor of two,
to tell minutes from hours and what fits into memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from training.data.splits import Split
from training.models.contract import ModelConfig, Recommender, RuntimeOptions
from training.resource_usage import Stopwatch, resident_mb
from training.workload import MB, WORK, Fit, Sizes

_PROBED = 0.05
"""Seconds that a probe of one currency takes."""


@dataclass(frozen=True)
class Speed:
    """Operations a second of this machine."""

    flops: float
    adds: float
    mixed: float
    moves: float
    passes: float


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


def forecast(
    family: str,
    config: ModelConfig,
    split: Split,
    options: RuntimeOptions,
    refit_options: RuntimeOptions | None = None,
    base_models: Mapping[str, Recommender] | None = None,
) -> Forecast | None:
    """What measuring a configuration takes: a fit before the validation window, a refit before the test window.

    None for a family that nothing is known of, as of a plug-in. The process's memory of now is counted in.

    Args:
        family: its name.
        config: its hyper-parameters.
        split: of the data set.
        options, refit_options: of either fit; by default the same.
        base_models: the models that the ensemble weighs, fitted before the validation window.
    """
    if family not in WORK:
        return None
    before = resident_mb()
    first, second = (
        Fit(dataset, config, each, split, base_models or {}, Sizes.of(dataset))
        for dataset, each in ((split.train, options), (split.before_test, refit_options or options))
    )
    fit, refit = WORK[family](first, second)
    work, speed = fit + refit, probe(options.threads)
    seconds = work.seconds + work.flops / speed.flops + work.adds / speed.adds
    seconds += work.mixed / speed.mixed + work.moves / speed.moves + work.passes / speed.passes
    return Forecast(second.sizes.rows, refit.parameters, before + work.peak_bytes / MB, seconds)


@lru_cache
def probe(threads: int) -> Speed:
    """How fast this machine is, in a quarter of a second. threads: a key only; libraries are bounded already.

    The best of many short calls counts: other work on the machine, which comes and goes, is not part of an estimate.
    """
    rng = np.random.default_rng(0)
    square = rng.random((384, 384), dtype=np.float32)
    sparse = sp.random_array((600, 600), density=0.04, format="csr", dtype=np.float32, rng=rng)
    met = float((np.diff(sparse.tocsc().indptr).astype(np.float64) * np.diff(sparse.indptr)).sum())
    dense = rng.random((600, 64), dtype=np.float32)
    flat, large = rng.random(100_000, dtype=np.float32), rng.random(4_000_000, dtype=np.float32)
    return Speed(
        flops=2 * 384**3 / _quickest(lambda: square @ square),
        adds=met / _quickest(lambda: sparse @ sparse),
        mixed=sparse.nnz * 64 / _quickest(lambda: sparse @ dense),
        moves=flat.size / _quickest(lambda: np.partition(flat, 1_000)),
        passes=large.size / _quickest(lambda: np.abs(large, out=large)),
    )


def _quickest(work: Callable[[], Any]) -> float:
    """Seconds of the quickest call, on this processor alone."""
    took: list[float] = []
    watch = Stopwatch()
    while sum(took) < _PROBED or len(took) < 2:
        watch.lap()
        work()
        took.append(watch.lap())
    return min(took)
