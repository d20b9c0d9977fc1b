"""The family `pairwise`: the contract of `training.models.contract` over item factors learned in `pairwise.training`.

score(history, i) = bias[i] + sum over history items j of weight(j) source[j] . target[i] / sqrt(n), n distinct items.
No user is stored: a history of one event is answered as one of a hundred is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import load_file, save_file

from feature_store.online import Histories
from pairwise.training import fit_factors
from training.data.dataset import Dataset
from training.models.contract import (
    Contributions,
    FloatMatrix,
    ModelConfig,
    Positions,
    Recommender,
    RuntimeOptions,
)
from training.models.profiles import build_profiles


class PairwiseConfig(ModelConfig):
    factors: int = Field(default=32, ge=1)
    epochs: int = Field(default=60, ge=1)
    learning_rate: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)


class Pairwise(Recommender):
    """Asymmetric matrix factorisation, learned by pairwise ranking."""

    family = "pairwise"
    Config = PairwiseConfig
    config: PairwiseConfig
    source: FloatMatrix  # [n_items, d]
    target: FloatMatrix  # [n_items, d]
    bias: FloatMatrix  # [n_items]

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        if not len(dataset.interactions):
            raise ValueError("pairwise ranking cannot be learned without interactions: record some first")
        profiles = build_profiles(dataset.histories(), dataset.n_items)
        rows = np.repeat(np.arange(len(profiles)), np.diff(profiles.offsets))
        threads = torch.get_num_threads()
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            torch.set_num_threads(options.threads)
            try:
                learned = fit_factors(
                    torch.from_numpy(rows),
                    torch.from_numpy(profiles.items.astype(np.int64)),
                    torch.from_numpy(profiles.weights),
                    dataset.n_items,
                    seconds=options.max_seconds,
                    **self.config.model_dump(),
                )
            finally:
                torch.set_num_threads(threads)
        self.source, self.target, self.bias = (
            parameter.numpy().copy() for parameter in (learned.source, learned.target, learned.bias)
        )
        # Of an item that nobody touched nothing was learned but that it lost every comparison.
        touched = np.bincount(dataset.interactions.items, minlength=dataset.n_items) > 0
        self.source[~touched] = self.target[~touched] = 0
        return self

    @property
    def n_items(self) -> int:
        return len(self.bias)

    def score(self, histories: Histories, candidates: Positions | None = None) -> FloatMatrix:
        profiles = build_profiles(histories, self.n_items)  # raises IndexError past the catalogue
        sizes = np.maximum(np.diff(profiles.offsets), 1)
        users = (profiles.matrix(self.n_items) @ self.source) / np.sqrt(sizes, dtype=np.float32)[:, None]
        scores = users @ self.target.T + self.bias  # [batch, n_items]
        return scores if candidates is None else scores[:, candidates]

    def item_vectors(self) -> FloatMatrix:
        lengths = np.linalg.norm(self.target, axis=1, keepdims=True)
        return np.divide(self.target, lengths, out=np.zeros_like(self.target), where=lengths > 0)

    def explain(self, histories: Histories, items: Positions) -> list[Contributions]:
        """What the score would lose without each item, exactly: the sum shrinks, and so does the root under it."""
        profiles = build_profiles(histories, self.n_items)
        explained = []
        for row, item in enumerate(items):
            span = slice(profiles.offsets[row], profiles.offsets[row + 1])
            history, n = profiles.items[span], span.stop - span.start
            parts = profiles.weights[span] * (self.source[history] @ self.target[item])  # [n]
            losses = parts.sum() / np.sqrt(max(n, 1)) - (parts.sum() - parts) / np.sqrt(max(n - 1, 1))
            order = np.argsort(-losses, kind="stable")
            explained.append(Contributions(history[order], losses[order].astype(np.float32)))
        return explained

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        """New items get the lowest cold score; nothing here reads metadata, so an edit changes nothing."""
        added = int((positions >= self.n_items).sum())
        if not added:
            return self
        room = np.zeros((added, self.source.shape[1]), np.float32)
        model = type(self)(self.config)
        model.source, model.target = np.vstack([self.source, room]), np.vstack([self.target, room])
        model.bias = np.concatenate([self.bias, np.full(added, self.bias.min(), np.float32)])
        return model

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "pairwise.json").write_text(json.dumps(self.config.model_dump(mode="json")))
        save_file({"source": self.source, "target": self.target, "bias": self.bias}, path / "pairwise.safetensors")

    @classmethod
    def load(cls, path: Path) -> Self:
        model = cls(PairwiseConfig.model_validate_json((path / "pairwise.json").read_text()))
        arrays = load_file(path / "pairwise.safetensors")
        model.source, model.target, model.bias = arrays["source"], arrays["target"], arrays["bias"]
        return model
