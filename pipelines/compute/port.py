"""What a step asks of the machines: tasks side by side, and groups of processes that train together.

A step is given a `Compute` and does not know which it has. `pipelines.compute.local` runs everything on this machine
and `pipelines.compute.ray_cluster` on a Ray cluster; `pipelines.compute.choice` chooses by the settings.
"""

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

OnProgress = Callable[[int, int], None]
"""Called in the caller's thread with the tasks that have finished and the tasks in all; where tasks are made one after
the other, with those that have been made."""


class TaskLostError(Exception):
    """The machines that ran a task, or a group of processes, died more often than it is retried."""


class Compute(Protocol):
    """Runs functions on one machine or on many. Results are equal on any of them.

    A function is one at the top level of a module, since another process imports it. What it is given is small and
    plain (`pipelines.compute.arguments`): paths and ranges, never tables, which travel as files in the shared folder.
    A function is *idempotent*: where the process that runs it dies, it runs again from the start, and two runs of the
    same task may even overlap. So it writes files that appear whole (`configs.files`), and never to the database.
    """

    @property
    def parallelism(self) -> int:
        """How many tasks can run at the same time, at least 1. A step may divide its work by it, not its results."""
        ...

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        memory_bytes: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Generator[Result, None, None]:
        """Call the function with each task, and yield the results in the order of the tasks.

        Tasks start when the first result is asked for, and only a bounded number of them is started or kept ahead of
        the result that is asked for next. Closing the generator cancels the tasks that run and starts no more; a loop
        that may raise stands in `contextlib.closing`.

        Args:
            tasks: all of them, or an iterator that makes each when it is started, in the caller's thread.
            memory_bytes: what a task needs at most. A machine is given no more tasks than fit its memory.
            on_progress: called whenever tasks have finished, in whatever order they do.

        Raises:
            TypeError: the function cannot be sent to another process, or, once it would start, a task.
            ValueError: no machine has so much memory.
            TaskLostError: the machines that ran a task died more often than it is retried.
            Exception: what a task raised, which is not retried. The other tasks are cancelled.
        """
        ...

    def train(self, function: Callable[[Task], Result], ranks: int, argument: Task) -> Result:
        """Call the function in a group of processes, and return the result of the first.

        Each process finds RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in its environment, as under
        `torchrun`, and joins the others by `training.process_group.join_process_group`. Where a process dies, all of
        them are ended and the whole group starts again: the function resumes from its own checkpoint in the shared
        folder.

        Args:
            ranks: the number of processes. One runs the function without any group.

        Raises:
            TypeError, TaskLostError, Exception: as `map` does.
        """
        ...
