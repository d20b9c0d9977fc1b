"""`Compute` on a Ray cluster. Ray is loaded when the first tasks are given, not before.

Whoever reaches a cluster's ports and holds its token executes code on its machines. So this driver speaks to clusters
with a token only, and sends no usage statistics. The cluster itself is started in
the same way, without a dashboard and on a private network.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sized
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from configs.compute import ray_environment
from pipelines.compute.arguments import check_importable, check_plain
from pipelines.compute.port import OnProgress, Result, Task, TaskLostError

MAX_RETRIES = 3
"""Of a task whose worker or machine died, beside the first attempt."""
AHEAD = 2
"""Tasks that are started or kept for each that can run, so that no processor waits for the driver."""


class RayCompute:
    """Runs tasks on the machines of a Ray cluster.

    Args:
        address: host and port of the cluster's head.
        token_file: holds the cluster's token.
    """

    def __init__(self, address: str, token_file: Path) -> None:
        if find_spec("ray") is None:
            raise ImportError("COMPUTE=ray needs Ray: pip install 'recommendai[ray]'")
        self._address, self._token_file = address, token_file

    @property
    def parallelism(self) -> int:
        return max(1, int(self._connected().cluster_resources().get("CPU", 0)))

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        memory_bytes: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Generator[Result, None, None]:
        check_importable(function)
        return self._results(function, tasks, memory_bytes, on_progress)

    def _results(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        memory_bytes: int | None,
        on_progress: OnProgress | None,
    ) -> Generator[Result, None, None]:
        ray = self._connected()
        _check_memory(ray, memory_bytes)
        remote = ray.remote(function).options(
            num_cpus=1, memory=memory_bytes, max_retries=MAX_RETRIES, retry_exceptions=False
        )
        at_once = AHEAD * self.parallelism
        waiting: deque[Any] = deque()  # references of tasks that are started and not yielded, in order
        finished: set[Any] = set()  # those of them that have ended
        n_started = n_finished = 0
        left = iter(tasks)
        try:
            while True:
                for task in islice(left, at_once - len(waiting)):
                    check_plain(task)
                    waiting.append(remote.remote(task))
                    n_started += 1
                if not waiting:
                    return
                ended, _ = ray.wait([each for each in waiting if each not in finished], num_returns=1)
                finished.update(ended)
                n_finished += len(ended)
                if on_progress is not None:
                    on_progress(n_finished, len(tasks) if isinstance(tasks, Sized) else n_started)
                while waiting and waiting[0] in finished:
                    first = waiting.popleft()
                    finished.discard(first)
                    yield _value(ray, first)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def train(self, function: Callable[[Task], Result], ranks: int, argument: Task) -> Result:
        from pipelines.compute.ray_group import run_group

        check_importable(function)
        check_plain(argument)
        if ranks == 1:
            return function(argument)
        return run_group(self._connected(), function, ranks, argument)

    def _connected(self) -> Any:
        """The module `ray`, whose connection is the process's own."""
        os.environ.update(ray_environment(self._token_file, self._address))  # read when Ray is imported
        import ray

        if not ray.is_initialized():
            ray.init(self._address, log_to_driver=False, configure_logging=False)
        return ray


def _check_memory(ray: Any, memory_bytes: int | None) -> None:
    """Raise ValueError where no machine can run a task at all; Ray would wait for one to join."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not machines:
        raise ValueError("no machine of the Ray cluster offers a processor: start one with `ray start`")
    largest = max(machine.get("memory", 0) for machine in machines)
    if memory_bytes is not None and memory_bytes > largest:
        raise ValueError(
            f"a task needs {memory_bytes / 1e9:.1f} GB and the largest machine of the cluster offers "
            f"{largest / 1e9:.1f}: divide the work into more tasks, or add a larger machine"
        )


def _value(ray: Any, reference: Any) -> Any:
    """The result of a task that has ended; raises what it raised, as a call in this process would."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise TaskLostError(f"a task was lost {MAX_RETRIES + 1} times with the process that ran it") from error
