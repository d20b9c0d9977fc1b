"""Functions that the tests run as tasks. A worker imports them by name."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Range:
    """A small plain task."""

    start: int
    end: int


def total(part: Range) -> int:
    return sum(range(part.start, part.end))


def fail_on_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def leave_a_mark(path: Path) -> str:
    path.touch()
    return path.name


def sum_of_ranks(_argument: None) -> tuple[int, int]:
    """The sum of the ranks of a process group, over gloo, and the number of its processes."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    value = torch.tensor([dist.get_rank()])
    dist.all_reduce(value)
    size = dist.get_world_size()
    dist.destroy_process_group()
    return int(value), size


def die_once(marks: Path) -> int:
    """The second process of a group is killed at the first attempt; the second attempt finds the mark."""
    rank = int(os.environ["RANK"])
    mark = marks / "died"
    if rank == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return sum_of_ranks(None)[0]
