"""The resource usage of a piece of work: wall-clock and processor seconds, and the peak memory of this process."""

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PROCESSOR = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class ResourceUsage:
    """What a piece of work took."""

    seconds: float
    cpu_seconds: float  # of all threads, and of processes that worked for this one; less than `seconds` after waiting
    peak_mb: float  # highest resident memory of the whole process during the work

    def __add__(self, other: "ResourceUsage") -> "ResourceUsage":
        """One after the other."""
        return ResourceUsage(
            self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, max(self.peak_mb, other.peak_mb)
        )


_of_others = [0.0]


def add_processor_seconds(seconds: float) -> None:
    """Count what other processes took for the work of this one, in the measurements that run."""
    _of_others[0] += seconds


class UsageMeasurement:
    """Filled when its block ends."""

    result: ResourceUsage


@contextmanager
def measure_usage() -> Iterator[UsageMeasurement]:
    """Measure the block. Where the kernel cannot reset the peak, it is that of the process so far."""
    with suppress(OSError):  # not on this platform, or /proc is read-only: no reason to fail a training
        _CLEAR.write_text("5")  # resets VmHWM, see proc(5)
    found = UsageMeasurement()
    clock, processor = _now()
    yield found
    ended = _now()
    found.result = ResourceUsage(ended[0] - clock, ended[1] - processor, _peak_mb())


def processor_model() -> str:
    """The model name of this machine's processor; the architecture where the system does not name the model."""
    if _PROCESSOR.exists():
        for line in _PROCESSOR.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def resident_mb() -> float:
    """Resident memory of this process now; its peak so far where the kernel does not say."""
    return _status("VmRSS") or _peak_mb()


def _now() -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    return time.perf_counter(), time.process_time() + _of_others[0]


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
