"""Forecasts the processor seconds and the memory of a training before it starts.

A family counts the work of its fits in seconds of a reference processor (`Recommender.workload`). A probe says how
much slower this machine is, and earlier trainings of the family here, which MLflow keeps, correct that. Only processor
time is measured, because the clock also counts the waiting for other processes. The forecast is in processor seconds
too: by the clock, a training takes at least that long divided by its threads, and longer on a busy machine.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from training.models.contract import ModelConfig, Recommender
from training.models.registry import family_class
from training.models.workload import MB, DataSizes, Workload
from training.resource_usage import processor_model, resident_mb

_PROBE_SECONDS = 0.04
"""Processor time that each part of the probe takes."""
_WEIGHT_OF_PROBE = 1.0
"""Seconds that earlier trainings must take together to count as much as the formula and the probe."""


@dataclass(frozen=True)
class PlannedFit:
    """One of the fits of a training."""

    sizes: DataSizes
    max_seconds: float  # by the clock, for families whose fits end when they are out of time


@dataclass(frozen=True)
class PastTraining:
    """What an earlier training of a family did and took."""

    rows: int
    work: float | None  # as `Forecast` has it; None where the family had no formula then
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Forecast:
    """What a training will take; None where a family has no formula and was not trained here before."""

    rows: int  # events of the last fit
    work: float | None = None  # seconds of the reference processor; None without a formula
    cpu_seconds: float | None = None  # of all threads
    peak_mb: float | None = None  # highest resident memory of the process
    parameters: int | None = None  # numbers that the last fit learns
    trainings: int = 0  # earlier ones that corrected the formula

    def notes(self) -> dict[str, Any]:
        """For the log and for the notes of a report, from which MLflow gets them beside what the training took."""
        known = {
            "work": self.work,
            "forecast_cpu_seconds": None if self.cpu_seconds is None else round(self.cpu_seconds, 3),
            "forecast_peak_mb": None if self.peak_mb is None else round(self.peak_mb, 1),
            "forecast_parameters": self.parameters,
        }
        return {
            "rows": self.rows,
            "forecast_trainings": self.trainings,
            "machine": processor_model(),
            **{name: value for name, value in known.items() if value is not None},
        }


def forecast(
    family: str,
    config: ModelConfig,
    fits: Sequence[PlannedFit],
    threads: int,
    base_models: Mapping[str, Recommender] | None = None,
    past: Sequence[PastTraining] = (),
) -> Forecast:
    """What these fits will take, one after the other.

    A family that stops early is expected to run all its epochs, up to `max_seconds`, until there are earlier trainings
    that show how soon it stops.

    Args:
        family: a name of `registry.families()`.
        config: its hyper-parameters.
        fits: at least one; all after the first are refits.
        threads: of a fit.
        base_models: of an ensemble, fitted.
        past: earlier trainings of the family on machines like this one.
    """
    model, rows = family_class(family), fits[-1].sizes.events
    found = {name: type(each).workload(fits[0].sizes, each.config) for name, each in (base_models or {}).items()}
    base_workloads = {name: each for name, each in found.items() if each is not None}
    counted = [
        model.workload(fit.sizes, config, refit=number > 0, base_models=base_workloads)
        for number, fit in enumerate(fits)
    ]
    workloads = [each for each in counted if each is not None]
    if len(workloads) < len(fits):
        return _without_formula(rows, past)
    loaded = [cost for library, cost in model.imports.items() if library not in sys.modules]
    workloads[0] += Workload(0, sum(seconds for seconds, _ in loaded))
    slowness = probe()
    comparable = [(one.cpu_seconds, slowness * one.work) for one in past if one.work is not None]
    taken, expected = (sum(column) for column in zip((_WEIGHT_OF_PROBE, _WEIGHT_OF_PROBE), *comparable, strict=True))
    slowness *= taken / expected

    def seconds(work: Workload, fit: PlannedFit) -> float:
        bound = fit.max_seconds * threads if work.stops_in_time else np.inf
        return min(slowness * work.seconds, bound)

    return Forecast(
        rows,
        sum(work.seconds for work in workloads),
        sum(map(seconds, workloads, fits)),
        resident_mb() + sum(mb for _, mb in loaded) + max(work.peak_bytes for work in workloads) / MB,
        workloads[-1].parameters,
        len(comparable),
    )


def _without_formula(rows: int, past: Sequence[PastTraining]) -> Forecast:
    """The time per event and the memory that earlier trainings took; unknown before the first training."""
    if not past:
        return Forecast(rows)
    rate = sum(one.cpu_seconds for one in past) / max(1, sum(one.rows for one in past))
    return Forecast(rows, None, rate * rows, max(one.peak_mb for one in past), None, len(past))


@cache
def probe() -> float:
    """How many times longer this machine takes for a mix of work than the reference processor does.

    Each part is the least processor time of many short calls, on one thread. Processor time leaves out the waiting for
    other processes. They also evict the cache now and then, and the quickest call is one in which they did not.
    """
    rng = np.random.default_rng(0)
    square = rng.random((256, 256), dtype=np.float32)
    sparse = sp.random_array((400, 400), density=0.04, format="csr", dtype=np.float32, rng=rng)
    vector = rng.random(20_000, dtype=np.float32)
    parts: tuple[tuple[Callable[[], Any], float], ...] = (  # with milliseconds on the reference processor
        (lambda: square @ square, 0.33),
        (lambda: sparse @ sparse, 1.0),
        (lambda: np.sort(vector), 0.325),
        (lambda: sum(value for value in range(20_000)), 0.45),
    )
    with threadpool_limits(1):
        return float(np.mean([_quickest(run) / (reference / 1_000) for run, reference in parts]))


def _quickest(run: Callable[[], Any]) -> float:
    """Processor seconds of the quickest of many calls."""
    taken: list[float] = []
    while len(taken) < 5 or sum(taken) < _PROBE_SECONDS:
        before = time.thread_time()
        run()
        taken.append(time.thread_time() - before)
    return min(taken)
