"""What a piece of work took: seconds of the clock and the peak of this process's memory."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Usage:
    seconds: float
    peak_mb: float  # highest resident memory of the whole process during the work


class Measurement:
    """Filled when its block ends."""

    result: Usage


@contextmanager
def measured() -> Iterator[Measurement]:
    """Measure the block. Where the kernel cannot reset the peak, it is that of the process so far."""
    with suppress(OSError):  # not on this platform, or /proc is read-only: no reason to fail a training
        _CLEAR.write_text("5")  # resets VmHWM, see proc(5)
    found = Measurement()
    began = time.perf_counter()
    yield found
    found.result = Usage(time.perf_counter() - began, _peak_mb())


def resident_mb() -> float:
    """Resident memory of this process now; its peak so far where the kernel does not say."""
    return _status("VmRSS") or _peak_mb()


def _status(name: str) -> float | None:
    """A size that the kernel keeps of this process, in MB; None where it does not."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return None


def _peak_mb() -> float:
    found = _status("VmHWM")
    return found if found is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
