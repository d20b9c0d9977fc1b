"""A few steps of a fit before it starts, taken as the fit takes them: what one costs here, and in what memory."""

import math
from dataclasses import dataclass, replace

import numpy as np
import structlog
import torch

from training.data.dataset import Dataset
from training.models.contract import RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.loop import Trainer
from training.models.deep_learning.network import Network
from training.models.deep_learning.sequences import epoch
from training.models.deep_learning.sharding import OneProcess
from training.resource_usage import Stopwatch, measure_usage, resident_mb

STEPS = 3
"""Batches that are learned from, twice: the first time warms up."""


@dataclass(frozen=True)
class Rehearsal:
    parameters: int
    seconds_per_place: float  # of a padded sequence, forward and back
    libraries_mb: float  # resident memory before the first step
    grown_mb: float  # by the steps


def places(dataset: Dataset, config: DeepLearningConfig) -> int:
    """Padded places of all sequences of one epoch."""
    batches = epoch(dataset.interactions, config.max_length + 1, config.batch_size, np.random.default_rng(0))
    return sum(batch.items.size for _, batch in batches)


def rehearse(dataset: Dataset, content_width: int, config: DeepLearningConfig, options: RuntimeOptions) -> Rehearsal:
    """Learn from a few of the users, among all items; nothing of it is kept.

    Args:
        dataset: at least one event.
        content_width: of the vectors of content, whose values do not matter here.
        config, options: those of the fit.
    """
    before, threads = resident_mb(), torch.get_num_threads()
    laps: list[float] = []
    watch = Stopwatch(options.device)
    with torch.random.fork_rng(), measure_usage() as usage, structlog.contextvars.bound_contextvars(rehearsal=True):
        torch.set_num_threads(options.threads)
        try:
            network = Network(content_width, config)
            content = np.ones((dataset.n_items, content_width), np.float32)
            quiet = replace(options, workdir=None, progress=lambda step, total, figure: laps.append(watch.lap()))
            trainer = Trainer(network, None, content, dataset, config, quiet, OneProcess())
            trainer.dataset = some_users(dataset, STEPS * config.batch_size, config.max_length + 1, options.seed)
            trainer.run("rehearsal", 2, config.learning_rate, math.inf)
        finally:
            torch.set_num_threads(threads)
    return Rehearsal(
        parameters=sum(p.numel() for p in network.parameters()) + dataset.n_items * config.dimensions,
        seconds_per_place=laps[-1] / places(trainer.dataset, config),
        libraries_mb=before,
        grown_mb=max(0.0, usage.result.peak_mb - before),
    )


def some_users(dataset: Dataset, sequences: int, length: int, seed: int) -> Dataset:
    """The events of users drawn at random, who make about so many sequences of at most this length."""
    events = np.bincount(dataset.interactions.users, minlength=dataset.n_users)
    order = np.random.default_rng(seed).permutation(dataset.n_users)
    made = np.cumsum(-(-events[order] // length))
    drawn = order[: int(np.searchsorted(made, sequences)) + 1]
    return dataset.where(np.isin(dataset.interactions.users, drawn))
