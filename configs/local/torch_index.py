"""Chooses where `make install` takes torch from, before anything is installed. Standard library only.

PyPI serves the CUDA build of torch on x86-64, 4.8 GB with its libraries. A machine without an NVIDIA driver has no use
for it, so there PyTorch's own index of CPU wheels comes first, about 200 MB. Prints the index on stdout, nothing for
pip's own configuration, and on stderr what was chosen, why, and how to choose otherwise.

    python configs/local/torch_index.py [--wanted INDEX] [--installed] [--gpu]
"""

import argparse
import os
import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PIP = "pip"
"""What `TORCH_INDEX` is set to for pip's own configuration."""
ANSWER_SECONDS = 3.0
DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl")


class TorchSource(NamedTuple):
    url: str  # empty: what pip is set up to find
    reason: str
    size: str


def choose(wanted: str, installed: bool, gpu: bool, driver: bool, cpu_index_answers: Callable[[], bool]) -> TorchSource:
    """Where torch comes from.

    Args:
        wanted: `TORCH_INDEX` as the user set it; empty where it is not set.
        installed: the environment has a torch of the right version already.
        gpu: `make install GPU=1`.
        driver: an NVIDIA driver was found.
        cpu_index_answers: asked only where the answer matters.
    """
    size = "about 200 MB for a CPU build, 4.8 GB for CUDA"
    if installed:
        return TorchSource("", "torch is installed already", "nothing to download")
    if wanted:
        return TorchSource("" if wanted == PIP else wanted, f"TORCH_INDEX={wanted} asks for it", size)
    if gpu or driver:
        return TorchSource("", "GPU=1 asks for the CUDA build" if gpu else "an NVIDIA driver was found", size)
    if cpu_index_answers():
        return TorchSource(CPU_INDEX, "no NVIDIA driver was found: the CUDA build is of no use", "about 200 MB")
    return TorchSource("", f"no NVIDIA driver was found, but {CPU_INDEX} does not answer within 3 seconds", size)


def has_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or any(Path(path).exists() for path in DRIVER_FILES)


def answers(index: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether the index lists torch within so many seconds, name resolution included."""
    found = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{index}/torch/", timeout=seconds) as response:  # noqa: S310 - https or a test
                found.append(response.status == 200)
        except (OSError, ValueError):
            found.append(False)

    thread = threading.Thread(target=ask, daemon=True)  # resolving a name has no time-out of its own
    thread.start()
    thread.join(seconds)
    return bool(found and found[0])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Print the index that torch is taken from.")
    parser.add_argument("--wanted", default="", help="TORCH_INDEX")
    parser.add_argument("--installed", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args(arguments)
    choice = choose(given.wanted, given.installed, given.gpu, has_driver(), lambda: answers(CPU_INDEX))
    source = choice.url or "what pip is set up to find"
    print(f"torch: {source} ({choice.reason}; {choice.size})", file=sys.stderr)
    if not given.installed:
        print(f"       choose with TORCH_INDEX=<address of an index>, or TORCH_INDEX={PIP}", file=sys.stderr)
    print(choice.url)
    sys.stdout.flush()
    os._exit(0)  # does not wait for a name that is still being resolved


if __name__ == "__main__":
    main()
