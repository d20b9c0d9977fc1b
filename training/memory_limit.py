"""Refuses a training that the memory is too small for, before its first fit, instead of dying in the middle of one."""

from pathlib import Path

from training.forecast import Forecast
from training.models.contract import RuntimeOptions
from training.models.registry import family_class
from training.models.workload import MB, DataSizes

_MEMORY, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")


class InsufficientMemoryError(MemoryError):
    """A training is expected to take more memory than it may. To try again changes nothing."""


def check_memory(family: str, expected: Forecast, sizes: DataSizes, options: RuntimeOptions) -> None:
    """Raise InsufficientMemoryError where the forecast exceeds the limit.

    A forecast without a formula is what earlier trainings took, and refuses nothing. Where nobody has set a limit and
    the system does not tell how much memory there is, nothing is refused either.

    sizes: of the largest data set that is fitted on.
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
    """The memory that processes like this one may take together; None where the system does not tell."""
    found = []
    if _MEMORY.exists():
        total = next(line for line in _MEMORY.read_text().splitlines() if line.startswith("MemTotal:"))
        found.append(int(total.split()[1]) / 1024)
    if _GROUP.exists() and (text := _GROUP.read_text().strip()) != "max":
        found.append(int(text) / MB)
    return min(found, default=None)
