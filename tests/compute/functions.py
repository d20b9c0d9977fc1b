"""Functions that the tests run as tasks. A worker imports them by name."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


@dataclass(frozen=True)
class Held:
    """A task that writes where it runs, and then waits until it may go on."""

    number: int
    marks: Path


def hold(task: Held) -> int:
    """The first task ends at once, the others when the file `go` is there."""
    import ray

    (task.marks / f"{task.number}@{ray.get_runtime_context().get_node_id()}@{os.getpid()}").touch()
    while task.number and not (task.marks / "go").exists():
        time.sleep(0.05)
    return task.number


def die_at_first(marks: Path) -> str:
    """The process is killed unless the mark of an earlier attempt is there."""
    if not (mark := marks / "died").exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return mark.name


def always_die(_task: int) -> None:
    os.kill(os.getpid(), 9)


def sum_of_ranks(_argument: None) -> tuple[int, int]:
    """The sum of the ranks of a process group, over gloo, and the number of its processes."""
    import torch
    import torch.distributed as dist

    from training.process_group import join_process_group

    join_process_group()
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


def fail_in_second_rank(_argument: None) -> tuple[int, int]:
    """The first process waits for the second, which fails."""
    if os.environ["RANK"] == "1":
        raise ValueError("the second process cannot go on")
    return sum_of_ranks(None)


def fit_held_once(folder: Path) -> float:
    """A process of a group that trains. On the machine that the file `dies` names, it waits before its second
    checkpoint, until it is killed. Each process leaves a line for each epoch that it finished."""
    import ray

    from training.models.deep_learning.checkpoint import Checkpoint
    from training.models.deep_learning.distributed import fit_in_group

    marks = folder.parent
    held = (marks / "dies").read_text() == ray.get_runtime_context().get_node_id()
    written = Checkpoint.write

    def write(self: Checkpoint, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
        epochs = len(facts["progress"]["losses"])
        if held and epochs == 2:
            (marks / "held").touch()
            time.sleep(600)
        written(self, tensors, facts)
        with (marks / f"rank-{os.environ['RANK']}").open("a") as file:
            file.write(f"{epochs}\n")

    Checkpoint.write = write
    return fit_in_group(folder)
