"""Training in several processes: those of `torchrun`, or those of a group that is started for each run of the loop.

Under `torchrun` the first process runs the command, and the others join each fit of this family:

    torchrun --nproc-per-node 2 -m training evaluate --models deep-learning --interactions ... --threads 1

Only the first process reads files, evaluates and saves models, and what it saves is the same as what one process
trains. It sends each fit to the others over the process group that `torchrun` has set up. Events and content of items
are not sent, but read from files that exist as long as the fit (`shared_data`). If a process fails within a fit, it
exits and `torchrun` stops the others. Each process writes checkpoints of its own part; the same number of processes can
resume from an epoch that all of them had finished.

With `RuntimeOptions.group` one process runs the command alone, and each run of the loop starts a group of its own
(`fit_in_group`), perhaps on other machines. Both train the same model.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import structlog
import torch
import torch.distributed as dist
from threadpoolctl import threadpool_limits

from configs.files import scratch_folder
from training.models.contract import FloatMatrix, ProcessGroup
from training.models.deep_learning.loop import Progress, Trainer
from training.models.deep_learning.network_fit import (
    FitResult,
    NetworkFit,
    read_fit,
    read_result,
    write_fit,
    write_result,
)
from training.models.deep_learning.sharding import ShardedProcesses, check_divisible, most_processes
from training.models.deep_learning.shared_data import shared_data
from training.models.deep_learning.strategy import SingleProcess
from training.process_group import WAIT_FOR_GROUP, join_process_group
from training.resource_usage import add_processor_seconds

log = structlog.get_logger(__name__)


class _AbandonedError(Exception):
    """The progress callback of the first process ended the fit between two epochs."""


def train_network(run: NetworkFit) -> tuple[Progress, FloatMatrix]:
    """Train the network in place, in all processes of `torchrun` where there are several, or in a group.

    A catalogue that is too small for all processes of the group takes fewer of them.

    Returns:
        The progress of the fit, and the id embeddings, float32 [n_items, d].

    Raises:
        ValueError: the fit cannot be divided among the processes.
        SystemExit: the first process failed within a step that the others take part in.
        Exception: as the group raises it.
    """
    if not dist.is_initialized():
        group = run.options.group
        if group is not None and (size := most_processes(run.data.open().dataset.n_items, group.processes)) > 1:
            return _train_in_group(run, group, size)
        return _train(run, SingleProcess())
    data = run.data.open()
    check_divisible(data.dataset.n_items, dist.get_world_size(), run.options.device)
    with shared_data(data, run.options.workdir) as shared:
        return _train_together(replace(run, data=shared))


def _train_together(run: NetworkFit) -> tuple[Progress, FloatMatrix]:
    """Train in all processes. The first one alone calls the progress callback of the run."""
    caller = run.options.progress
    run = replace(run, options=replace(run.options, progress=None))
    _broadcast((run, caller is not None, torch.get_rng_state()))
    ended: list[Exception] = []

    def progress(number: int, epochs: int, figure: float | None) -> None:
        try:
            caller(number, epochs, figure)  # type: ignore[misc]
        except Exception as error:
            ended.append(error)
        _broadcast(not ended)
        if ended:
            raise _AbandonedError

    try:
        reporting = replace(run.options, progress=progress if caller else None)
        return _train(replace(run, options=reporting), ShardedProcesses())
    except _AbandonedError:
        raise ended[0] from None
    except BaseException as error:
        dist.destroy_process_group()  # the others are within a step, where no message reaches them
        log.error("a fit of several processes failed and ends them", stage=run.stage, exc_info=error)
        raise SystemExit(1) from error


def _train_in_group(run: NetworkFit, group: ProcessGroup, size: int) -> tuple[Progress, FloatMatrix]:
    """Train in new processes, which exchange files with this one. The files are deleted whatever happens."""
    check_divisible(run.data.open().dataset.n_items, size, run.options.device)
    if run.options.progress is not None:
        raise ValueError("the progress of a fit in a group cannot be told to this process")
    with scratch_folder(group.folder) as folder:
        write_fit(run, folder)
        log.info("trains in a group", stage=run.stage, processes=size)
        add_processor_seconds(group.train(fit_in_group, size, folder))
        result = read_result(folder)
    run.network.load_state_dict(result.network)
    run.network.eval()
    torch.set_rng_state(result.random_state)
    return Progress(**result.progress), result.ids


def fit_in_group(folder: Path) -> float:
    """One process of a group: train its share of the run in this folder, going on from the group's last checkpoint.

    The first process writes the result into the folder.

    Returns:
        Processor seconds of all processes of the group.
    """
    logging.getLogger("torch.fx").setLevel(logging.ERROR)  # torchrec triggers its warnings
    join_process_group()
    try:
        run, random_state = read_fit(folder)
        strategy = ShardedProcesses()
        structlog.contextvars.bind_contextvars(process=strategy.rank)
        torch.set_num_threads(run.options.threads)
        torch.set_rng_state(random_state)
        with threadpool_limits(run.options.threads):
            progress, ids = _train(run, strategy)
        if not strategy.rank:
            write_result(FitResult(run.network.state_dict(), ids, asdict(progress), torch.get_rng_state()), folder)
        return strategy.all_reduce_sum(time.process_time())
    finally:
        dist.destroy_process_group()


def run_with_torchrun(command: Callable[[], None]) -> None:
    """Run the command in the first process of `torchrun`; the others take part in its fits until it ends."""
    logging.getLogger("torch.fx").setLevel(logging.ERROR)  # torchrec triggers its warnings
    dist.init_process_group("gloo", timeout=WAIT_FOR_GROUP)
    structlog.contextvars.bind_contextvars(process=dist.get_rank())
    try:
        if dist.get_rank():
            _join_fits()
        else:
            command()
    finally:
        if dist.is_initialized():
            if not dist.get_rank():
                _broadcast(None)
            dist.destroy_process_group()


def _join_fits() -> None:
    while (received := _receive()) is not None:
        run, reports, random_state = received
        torch.set_num_threads(run.options.threads)
        torch.set_rng_state(random_state)
        if reports:
            run = replace(run, options=replace(run.options, progress=_await_first_process))
        with suppress(_AbandonedError):
            _train(run, ShardedProcesses())


def _train(run: NetworkFit, strategy: SingleProcess) -> tuple[Progress, FloatMatrix]:
    data = run.data.open()
    trainer = Trainer(run.network, data.ids, data.content, data.dataset, run.config, run.options, strategy)
    progress = trainer.run(run.stage, run.epochs, run.learning_rate, run.seconds, run.holdout)
    return progress, trainer.export()


def _await_first_process(number: int, epochs: int, figure: float | None) -> None:
    """The progress callback of the other processes: raises where the first process ended the fit."""
    if not _receive():
        raise _AbandonedError


def _broadcast(message: Any) -> None:
    dist.broadcast_object_list([message], src=0)


def _receive() -> Any:
    received: list[Any] = [None]
    dist.broadcast_object_list(received, src=0)
    return received[0]
