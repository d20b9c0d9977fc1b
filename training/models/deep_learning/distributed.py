"""`torchrun`: the first process runs the command, the others take their part in each fit of this family.

    torchrun --nproc-per-node 2 -m training evaluate --models deep-learning --interactions ... --threads 1

The first process alone reads files, evaluates and keeps models, and what it keeps is no different from what one
process trains. A fit goes to the others over the process group that `torchrun` has set up, never through a file. A
process that fails within a fit ends, and `torchrun` ends the others. Each writes checkpoints of its own part, which so
many processes go on from where all of them had ended the same epoch.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import structlog
import torch
import torch.distributed as dist

from training.data.dataset import Dataset
from training.data.splits import Holdout
from training.models.contract import FloatMatrix, RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.loop import Progress, Trainer
from training.models.deep_learning.network import Network
from training.models.deep_learning.sharding import OneProcess, Sharded, check_divisible

log = structlog.get_logger(__name__)

_PATIENCE = timedelta(days=30)
"""The others wait for as long as the first reads and evaluates. One that died is noticed at once all the same."""


@dataclass(frozen=True)
class Fit:
    """One run of the training loop; `Trainer` says what each part is."""

    network: Network
    ids: FloatMatrix | None
    content: FloatMatrix
    dataset: Dataset
    config: DeepLearningConfig
    options: RuntimeOptions
    stage: str
    epochs: int
    learning_rate: float
    seconds: float
    holdout: Holdout | None = None


class _AbandonedError(Exception):
    """The first process's caller ended the fit between two epochs."""


def learn(fit: Fit) -> tuple[Progress, FloatMatrix]:
    """Train the network in place, by all processes of `torchrun` where there are several.

    Returns:
        What the fit went through, and the id embeddings, float32 [n_items, d].

    Raises:
        ValueError: the fit cannot be divided among the processes.
        SystemExit: it failed in the midst of a step that the others wait in.
    """
    if not dist.is_initialized():
        return _learn(fit, OneProcess())
    check_divisible(fit.dataset.n_items, dist.get_world_size(), fit.options.device)
    caller = fit.options.progress
    options = replace(fit.options, progress=None)
    fit = replace(fit, dataset=_without_metadata(fit.dataset), options=options)
    _tell((fit, caller is not None, torch.get_rng_state()))
    ended: list[Exception] = []

    def progress(number: int, epochs: int, figure: float | None) -> None:
        try:
            caller(number, epochs, figure)  # type: ignore[misc]
        except Exception as error:
            ended.append(error)
        _tell(not ended)
        if ended:
            raise _AbandonedError

    try:
        return _learn(replace(fit, options=replace(options, progress=progress if caller else None)), Sharded())
    except _AbandonedError:
        raise ended[0] from None
    except BaseException as error:
        dist.destroy_process_group()  # the others are in the midst of a step, where no word reaches them
        log.error("a fit of several processes failed and ends them", stage=fit.stage, exc_info=error)
        raise SystemExit(1) from error


def run(command: Callable[[], None]) -> None:
    """Run the command in the first process of `torchrun`; in the others, train with it until it ends."""
    logging.getLogger("torch.fx").setLevel(logging.ERROR)  # it warns of what torchrec asks it
    dist.init_process_group("gloo", timeout=_PATIENCE)
    structlog.contextvars.bind_contextvars(process=dist.get_rank())
    try:
        if dist.get_rank():
            _follow()
        else:
            command()
    finally:
        if dist.is_initialized():
            if not dist.get_rank():
                _tell(None)
            dist.destroy_process_group()


def _follow() -> None:
    while (told := _hear()) is not None:
        fit, reports, draws = told
        torch.set_num_threads(fit.options.threads)
        torch.set_rng_state(draws)
        if reports:
            fit = replace(fit, options=replace(fit.options, progress=_go_on))
        with suppress(_AbandonedError):
            _learn(fit, Sharded())


def _learn(fit: Fit, crew: OneProcess) -> tuple[Progress, FloatMatrix]:
    trainer = Trainer(fit.network, fit.ids, fit.content, fit.dataset, fit.config, fit.options, crew)
    progress = trainer.run(fit.stage, fit.epochs, fit.learning_rate, fit.seconds, fit.holdout)
    return progress, trainer.export()


def _go_on(number: int, epochs: int, figure: float | None) -> None:
    if not _hear():
        raise _AbandonedError


def _tell(word: Any) -> None:
    dist.broadcast_object_list([word], src=0)


def _hear() -> Any:
    heard: list[Any] = [None]
    dist.broadcast_object_list(heard, src=0)
    return heard[0]


def _without_metadata(dataset: Dataset) -> Dataset:
    """What the loop reads of a data set, and nothing else that would have to be sent."""
    n = dataset.n_items
    items = replace(dataset.items, ids=np.arange(n).astype(object), metadata=[])
    return Dataset(dataset.interactions, items, dataset.n_users)
