"""SASRec of RecTools (Kang and McAuley, 2018, with its softmax loss): fitted some epochs at a time."""

from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer, seed_everything
from queries import Log
from rectools.dataset import Dataset
from rectools.models import SASRecModel

Config = dict[str, Any]


class SasRec:
    """A model that can be scored between epochs."""

    def __init__(self, log: Log, config: Config, threads: int, seed: int) -> None:
        torch.set_num_threads(threads)
        seed_everything(seed)
        frame = pd.DataFrame(
            {
                "user_id": log.users,
                "item_id": log.items,
                "weight": 1.0,
                # Places in the log as moments: the order within a user is all that the model reads.
                "datetime": pd.to_datetime(np.arange(len(log.users)), unit="s"),
            }
        )
        self.n_items = log.n_items
        self.dataset = Dataset.construct(frame)
        self.model = SASRecModel(
            n_blocks=config["blocks"],
            n_heads=config["heads"],
            n_factors=config["factors"],
            dropout_rate=config["dropout"],
            session_max_len=config["max_length"],
            lr=config["learning_rate"],
            batch_size=config["batch_size"],
            loss="softmax",
            recommend_n_threads=threads,
            get_trainer_func=_trainer,
        )

    def go_on(self, epochs: int) -> Self:
        self.model.fit_partial(self.dataset, min_epochs=epochs, max_epochs=epochs)
        return self

    def score(self, users: np.ndarray) -> np.ndarray:
        """float32 [n, n_items]; an item that the model does not know comes last."""
        known = users[np.isin(users, self.dataset.user_id_map.external_ids)]
        found = self.model.recommend(known, self.dataset, k=self.n_items, filter_viewed=False)
        scores = np.full((len(users), self.n_items), np.nan, dtype=np.float32)
        rows = pd.Series(np.arange(len(users)), index=users)[found.user_id].to_numpy()
        scores[rows, found.item_id.to_numpy(dtype=np.int64)] = found.score
        lowest = np.nanmin(scores[rows]) if len(rows) else 0.0
        return np.nan_to_num(scores, nan=lowest - 1)


def _trainer() -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
