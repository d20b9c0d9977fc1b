"""Refuses a training that is expected to need too much memory, before its first fit."""

from pathlib import Path

from training.forecast import Forecast
from training.models.contract import RuntimeOptions
from training.models.registry import family_class
from training.models.workload import MB, DataSizes

_SYSTEM_MEMORY, _CGROUP_LIMIT = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")


class InsufficientMemoryError(MemoryError):
    """A training is expected to take more memory than it may. A retry would fail in the same way."""


def check_memory(family: str, expected: Forecast, sizes: DataSizes, options: RuntimeOptions) -> None:
    """Raise InsufficientMemoryError where the forecast exceeds the limit.

    A forecast from earlier trainings alone, without a workload, refuses nothing. Nor does it where no limit is set and
    the system does not say how much memory there is.

    sizes: of the largest data set that is fitted on, for the message.
    """
    limit = options.max_memory_mb or _available_mb()
    if limit is None or expected.work is None or expected.peak_mb is None or expected.peak_mb <= limit:
        return
    advice = family_class(family).memory_advice
    raise InsufficientMemoryError(
        f"{family} would take about {expected.peak_mb:,.0f} MB for {sizes.events:,} events of {sizes.users:,} users on "
        f"{sizes.items:,} items, and may take {limit:,.0f} MB: {advice}{', ' if advice else ''}"
        "train on a machine with more memory, or raise TRAIN_MEMORY_MB where the forecast is too high"
    )


def _available_mb() -> float | None:
    """The memory of the machine or of this process's cgroup (version 2), in MB; None where neither is known."""
    found = []
    if _SYSTEM_MEMORY.exists():
        total = next(line for line in _SYSTEM_MEMORY.read_text().splitlines() if line.startswith("MemTotal:"))
        found.append(int(total.split()[1]) / 1024)
    if _CGROUP_LIMIT.exists() and (text := _CGROUP_LIMIT.read_text().strip()) != "max":
        found.append(int(text) / MB)
    return min(found, default=None)
