"""The stages of a fit: train with a hold-out and early stopping, then continue on all events."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from training.data.dataset import Dataset
from training.data.splits import Split, leave_one_out_split, temporal_split
from training.models.contract import FloatMatrix, RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.network import Network
from training.models.deep_learning.network_fit import NetworkFit
from training.models.deep_learning.shared_data import FitData

_VALIDATED_SHARE = 0.78  # of the time of a fit
_CONTINUED_SHARE = 0.2  # for the continuation on all events
_FINISHED_SHARE = 0.02  # for the last validation, and for the check of the attribution
_MIN_VALIDATION_USERS = 20
_MAX_VALIDATION_USERS = 1_000
_WINDOW = 0.05  # share of the newest events that validate a model with a horizon


def fit_network(
    network: Network, content: FloatMatrix, dataset: Dataset, config: DeepLearningConfig, options: RuntimeOptions
) -> tuple[FloatMatrix, dict[str, Any]]:
    """Train a new network in place.

    Args:
        network: randomly initialised; left frozen, on the CPU, in evaluation mode.
        content: float32 [n_items, content_width].
        dataset: at least one event.
        config, options: as in `DeepLearning.fit`.

    Returns:
        The id embeddings, float32 [n_items, d], and the training record.
    """
    from training.models.deep_learning.distributed import train_network  # imports torchrec

    network.types.requires_grad_(False)
    split = hold_out(dataset, config, _MAX_VALIDATION_USERS)
    validated = len(split.test) >= _MIN_VALIDATION_USERS
    progress, ids = train_network(
        NetworkFit(
            network,
            FitData(split.before_test if validated else dataset, content, None),
            config,
            options,
            "fit",
            config.epochs,
            config.learning_rate,
            options.max_seconds * _VALIDATED_SHARE,
            split.test if validated else None,
        )
    )
    record = {**asdict(progress), "parameters": sum(p.numel() for p in network.parameters())}
    seconds = options.max_seconds * _CONTINUED_SHARE
    return continue_network(network, ids, content, dataset, config, options, record, "held-out", seconds)


def continue_network(
    network: Network,
    ids: FloatMatrix,
    content: FloatMatrix,
    dataset: Dataset,
    config: DeepLearningConfig,
    options: RuntimeOptions,
    record: dict[str, Any],
    stage: str = "refit",
    seconds: float | None = None,
) -> tuple[FloatMatrix, dict[str, Any]]:
    """Train a fitted network for `refit_epochs` over all events, in place.

    Args:
        network: fitted; left frozen, on the CPU, in evaluation mode.
        ids: float32 [n_items, d] to start from.
        content: float32 [n_items, content_width].
        dataset: at least one event.
        config, options: as in `DeepLearning.fit`.
        record: of the stages before.
        stage: name of the checkpoint files.
        seconds: bounds the stage; None: `options.max_seconds`, less what the check of the attribution takes.

    Returns:
        The id embeddings, float32 [n_items, d], and the training record with this stage's losses.
    """
    from training.models.deep_learning.distributed import train_network  # imports torchrec

    network.types.requires_grad_(False)
    if config.refit_epochs:
        progress, ids = train_network(
            NetworkFit(
                network,
                FitData(dataset, content, ids),
                config,
                options,
                stage,
                config.refit_epochs,
                config.refit_learning_rate,
                options.max_seconds * (1 - _FINISHED_SHARE) if seconds is None else seconds,
            )
        )
        record = {**record, "refit_losses": progress.losses}
    network.requires_grad_(False)
    return ids, record


def hold_out(dataset: Dataset, config: DeepLearningConfig, max_users: int) -> Split:
    """The events that validate a fit: the newest window where a horizon is configured, else each user's last event."""
    mask = dataset.ranking_mask
    if config.horizon_days is None:
        return leave_one_out_split(dataset, mask, max_users)
    return temporal_split(dataset, mask, _WINDOW, _WINDOW, max_users)


def padded_ids(ids: torch.Tensor, n_items: int) -> FloatMatrix:
    """Id embeddings of a grown catalogue, float32 [n_items, d]: zero for new items. ids: [n_known, d]."""
    grown = np.zeros((n_items, ids.shape[1]), np.float32)
    grown[: len(ids)] = ids.numpy()
    return grown


@contextmanager
def reproducible(options: RuntimeOptions) -> Iterator[None]:
    """Seed torch and fix its number of threads inside; restore both afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        torch.set_num_threads(options.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
