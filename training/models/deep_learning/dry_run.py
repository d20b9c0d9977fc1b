"""A dry run: a few steps of a fit before it starts, to measure their time and memory on this machine."""

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
from training.models.deep_learning.strategy import SingleProcess
from training.resource_usage import Stopwatch, measure_usage, resident_mb

STEPS = 3
"""Batches of an epoch of the dry run. It has two epochs; the first warms up and is not timed."""


@dataclass(frozen=True)
class DryRun:
    parameters: int
    seconds_per_place: float  # of a padded sequence, forward and backward pass
    libraries_mb: float  # resident memory before the first step
    grown_mb: float  # growth of it during the steps


def places(dataset: Dataset, config: DeepLearningConfig) -> int:
    """Places of all sequences of one epoch, padding included."""
    batches = epoch(dataset.interactions, config.max_length + 1, config.batch_size, np.random.default_rng(0))
    return sum(batch.items.size for _, batch in batches)


def dry_run(dataset: Dataset, content_width: int, config: DeepLearningConfig, options: RuntimeOptions) -> DryRun:
    """Train on a few of the users, among all items, and discard the result.

    Args:
        dataset: at least one event.
        content_width: width of the content vectors; their values do not matter here.
        config, options: as in the fit.
    """
    before, threads = resident_mb(), torch.get_num_threads()
    laps: list[float] = []
    watch = Stopwatch(options.device)
    with torch.random.fork_rng(), measure_usage() as usage, structlog.contextvars.bound_contextvars(dry_run=True):
        torch.set_num_threads(options.threads)
        try:
            network = Network(content_width, config)
            content = np.ones((dataset.n_items, content_width), np.float32)
            quiet = replace(options, workdir=None, progress=lambda step, total, figure: laps.append(watch.lap()))
            trainer = Trainer(network, None, content, dataset, config, quiet, SingleProcess())
            trainer.dataset = some_users(dataset, STEPS * config.batch_size, config.max_length + 1, options.seed)
            trainer.run("dry-run", 2, config.learning_rate, math.inf)
        finally:
            torch.set_num_threads(threads)
    return DryRun(
        parameters=sum(p.numel() for p in network.parameters()) + dataset.n_items * config.dimensions,
        seconds_per_place=laps[-1] / places(trainer.dataset, config),
        libraries_mb=before,
        grown_mb=max(0.0, usage.result.peak_mb - before),
    )


def some_users(dataset: Dataset, sequences: int, length: int, seed: int) -> Dataset:
    """The events of randomly drawn users who give about so many sequences of at most this length."""
    events = np.bincount(dataset.interactions.users, minlength=dataset.n_users)
    order = np.random.default_rng(seed).permutation(dataset.n_users)
    made = np.cumsum(-(-events[order] // length))
    drawn = order[: int(np.searchsorted(made, sequences)) + 1]
    return dataset.where(np.isin(dataset.interactions.users, drawn))
