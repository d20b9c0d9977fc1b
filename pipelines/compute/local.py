"""`Compute` on this machine, the default: tasks one after the other in this process. Imports no Ray."""

from collections.abc import Callable, Generator, Iterable, Sized

from pipelines.compute.arguments import check_importable, check_plain
from pipelines.compute.port import OnProgress, Result, Task, TaskLostError

MAX_RESTARTS = 3
"""Of a group of processes, after one of them died."""


class LocalCompute:
    """Runs tasks in this process, in order. The steps' own libraries use its cores by threads."""

    parallelism = 1

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        memory_bytes: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Generator[Result, None, None]:
        check_importable(function)
        return self._results(function, tasks, on_progress)

    def _results(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], on_progress: OnProgress | None
    ) -> Generator[Result, None, None]:
        for number, task in enumerate(tasks, start=1):
            check_plain(task)
            result = function(task)
            if on_progress is not None:
                on_progress(number, len(tasks) if isinstance(tasks, Sized) else number)
            yield result

    def train(self, function: Callable[[Task], Result], ranks: int, argument: Task) -> Result:
        """See `Compute.train`. Several processes are started as `torchrun` starts them."""
        check_importable(function)
        check_plain(argument)
        if ranks == 1:
            return function(argument)
        # Loads torch.
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=MAX_RESTARTS,
            monitor_interval=1.0,
        )
        try:
            return elastic_launch(config, function)(argument)[0]
        except ChildFailedError as error:
            raise TaskLostError(f"a process of {ranks} failed after {MAX_RESTARTS} restarts") from error
