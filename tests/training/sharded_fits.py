"""What each process of `torchrun` runs for `test_sharded_training`: fits by the first, with the hands of the others."""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from configs.logging import configure
from tests.training.catalogue import build_dataset
from training.data.dataset import ItemTable
from training.models.contract import RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.distributed import run_with_torchrun
from training.models.deep_learning.model import DeepLearning

CONFIG = DeepLearningConfig(dimensions=16, max_length=20, epochs=2, refit_epochs=1, batch_size=16)
OPTIONS = RuntimeOptions(threads=1, seed=1, max_seconds=1e6)


def fits() -> dict[str, np.ndarray]:
    """Scores of all users by models that differ in what their names say, and what a caller heard of an ended fit."""
    whole = build_dataset()
    ids, metadata, active = whole.items.ids[:-1], whole.items.metadata[:-1], whole.items.active[:-1]
    dataset = replace(whole.where(whole.interactions.items < whole.n_items - 1), items=ItemTable(ids, metadata, active))
    histories = dataset.histories()

    def scores(config: DeepLearningConfig = CONFIG, options: RuntimeOptions = OPTIONS) -> np.ndarray:
        return DeepLearning(config).fit(dataset, options).score(histories)

    def end(number: int, epochs: int, figure: float | None) -> None:
        heard.append(number)
        raise InterruptedError("by the caller")

    heard: list[int] = []
    found = {"first": scores()}
    with TemporaryDirectory() as folder:
        kept = replace(OPTIONS, workdir=Path(folder))
        try:
            scores(options=replace(kept, progress=end))
        except InterruptedError:
            found["ended_after"] = np.array(heard)
        found["resumed"] = scores(options=kept)
    found["other_seed"] = scores(options=replace(OPTIONS, seed=2))
    found["sampled"] = scores(CONFIG.model_copy(update={"candidates": 40}))
    return found


if __name__ == "__main__":
    configure("fits")
    run_with_torchrun(lambda: np.savez(Path(sys.argv[1]), **fits()))
