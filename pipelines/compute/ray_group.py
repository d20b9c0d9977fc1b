"""A group of processes on a Ray cluster, one for each rank, which starts again where one of them dies.

Ray's own trainer is not used: its groups listen on all network addresses of a machine, it keeps state of its own beside
our checkpoints, and retries what a function raises.
"""

import os
import socket
from collections.abc import Callable
from typing import Any

from pipelines.compute.port import Result, Task, TaskLostError

MAX_GROUP_RESTARTS = 3
"""Of a group, after one of its processes died."""

CAUSE_SECONDS = 60
"""Within which the end of a process is known, after the connection of another one to it broke."""

RESERVE_SECONDS = 600
"""Within which the processors of a group must be free, after a machine died too."""


class Rank:
    """One process of a group. Ray runs it as an actor."""

    def address(self) -> tuple[str, int]:
        """The address of this machine in the cluster, and a port that is free there."""
        import ray

        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
            return host, probe.getsockname()[1]

    def run(self, function: Callable[[Any], Any], argument: Any, environment: dict[str, str]) -> Any:
        os.environ.update(environment)
        return function(argument)


def run_group(ray: Any, function: Callable[[Task], Result], ranks: int, argument: Task) -> Result:
    """See `Compute.train`. The machines are reserved together, so that two groups never wait for each other.

    Raises ValueError where the cluster has fewer processors than ranks.
    """
    processors = ray.cluster_resources().get("CPU", 0)
    if processors < ranks:
        raise ValueError(f"{ranks} processes need as many processors, and the Ray cluster has {processors:.0f}")
    for _ in range(MAX_GROUP_RESTARTS + 1):
        reserved = ray.util.placement_group([{"CPU": 1}] * ranks, strategy="SPREAD")
        try:
            ray.get(reserved.ready(), timeout=RESERVE_SECONDS)
            return _run_once(ray, reserved, function, ranks, argument)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayActorError as error:
            lost = error
        except ray.exceptions.GetTimeoutError as error:
            raise TaskLostError(f"{ranks} processors were not free within {RESERVE_SECONDS} s") from error
        finally:
            ray.util.remove_placement_group(reserved)  # ends its processes
    raise TaskLostError(f"a process of {ranks} died {MAX_GROUP_RESTARTS + 1} times") from lost


def _run_once(ray: Any, reserved: Any, function: Callable[[Task], Result], ranks: int, argument: Task) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    actor = ray.remote(Rank)
    actors = [
        actor.options(
            num_cpus=1,
            max_restarts=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(reserved, placement_group_bundle_index=rank),
        ).remote()
        for rank in range(ranks)
    ]
    host, port = ray.get(actors[0].address.remote())
    hosts = [address for address, _ in ray.get([each.address.remote() for each in actors])]
    results = [
        each.run.remote(
            function,
            argument,
            {
                "RANK": str(rank),
                "LOCAL_RANK": str(hosts[:rank].count(hosts[rank])),
                "WORLD_SIZE": str(ranks),
                "MASTER_ADDR": host,
                "MASTER_PORT": str(port),
            },
        )
        for rank, each in enumerate(actors)
    ]
    unfinished = results
    while unfinished:  # in the order of ending, so that the first that dies is noticed while others wait for it
        ended, unfinished = ray.wait(unfinished, num_returns=1)
        try:
            ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RuntimeError):
                _raise_cause(ray, unfinished)
            raise
    return ray.get(results[0])


def _raise_cause(ray: Any, unfinished: list[Any]) -> None:
    """Raise what ended another process, after one failed as if its connection to another broke: gloo's RuntimeError.

    Returns where no other process ended in another way.
    """
    others, _ = ray.wait(unfinished, num_returns=len(unfinished), timeout=CAUSE_SECONDS) if unfinished else ([], [])
    found = None
    for each in others:
        try:
            ray.get(each)
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, RuntimeError):
                found = error
        # RayActorError, of a process that died, is raised.
    if found is not None:
        raise found
