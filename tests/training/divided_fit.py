"""What each process of `torchrun` runs for `test_divided_tables`: a fit whose largest tables are measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from configs.logging import configure
from tests.training.catalogue import build_dataset
from training.data.dataset import Dataset, ItemTable
from training.models.contract import RuntimeOptions
from training.models.deep_learning import distributed, divided_tables, validation
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.loop import Trainer
from training.models.deep_learning.model import DeepLearning
from training.models.deep_learning.strategy import SingleProcess

log = structlog.get_logger(__name__)

N_ITEMS = 3_000
"""Most of them without an event. No batch of users has as many rows as half of the catalogue."""


class LargestTable(TorchDispatchMode):
    """The most rows of any matrix that an operation made within the block, whose memory is not that of a file."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            matrix = isinstance(each, torch.Tensor) and each.ndim == 2 and each.device.type != "meta"
            if matrix and len(each) > self.rows and not of_file(each):
                self.rows = len(each)
        return result


def of_file(tensor: torch.Tensor) -> bool:
    """Whether the numbers lie in a mapped file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return "content.npy" in line
    return False


def train_measured(run: distributed.NetworkFit, strategy: SingleProcess) -> Any:
    """As `distributed._train`. The finished table, which the first process saves, is not counted."""
    validation.HISTORIES_SCORED_AT_ONCE, divided_tables.ROWS_DRAWN_AT_ONCE = 8, 256
    data = run.data.open()
    with LargestTable() as largest:
        trainer = Trainer(run.network, data.ids, data.content, data.dataset, run.config, run.options, strategy)
        progress = trainer.run(run.stage, run.epochs, run.learning_rate, run.seconds, run.holdout)
    log.info("held", rows=largest.rows, stage=run.stage)
    return progress, trainer.export()


def dataset() -> Dataset:
    small = build_dataset()
    metadata = [*small.items.metadata, *({"title": f"number {n}"} for n in range(small.n_items, N_ITEMS))]
    return replace(
        small, items=ItemTable(np.arange(N_ITEMS).astype(str).astype(object), metadata, np.ones(N_ITEMS, bool))
    )


def fit() -> DeepLearning:
    config = DeepLearningConfig(dimensions=16, max_length=20, epochs=1, refit_epochs=1, batch_size=16)
    return DeepLearning(config).fit(dataset(), RuntimeOptions(threads=1, max_seconds=1e6))


if __name__ == "__main__":
    configure("divided-fit")
    distributed._train = train_measured
    distributed.run_with_torchrun(fit)
