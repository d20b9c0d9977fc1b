"""The family `pairwise`: the contract of `training.models.contract` over item factors learned in `pairwise.training`.

score(history, i) = bias[i] + sum over history items j of weight(j) source[j] . target[i] / sqrt(n), n distinct items.
No user is stored: users with one event and users with a hundred are scored in the same way.
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
from training.models.contract import FloatMatrix, ModelConfig, Positions, Recommender, RuntimeOptions
from training.models.lists import Contributions
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
        # An item without events was only drawn as a negative, so its factors mean nothing.
        has_events = np.bincount(dataset.interactions.items, minlength=dataset.n_items) > 0
        self.source[~has_events] = self.target[~has_events] = 0
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
        """How much the score falls without each item, exactly: the sum has a term less, and n is smaller by one."""
        profiles = build_profiles(histories, self.n_items)
        explained = []
        for row, item in enumerate(items):
            span = slice(profiles.offsets[row], profiles.offsets[row + 1])
            history, n = profiles.items[span], span.stop - span.start
            terms = profiles.weights[span] * (self.source[history] @ self.target[item])  # [n]
            falls = terms.sum() / np.sqrt(max(n, 1)) - (terms.sum() - terms) / np.sqrt(max(n - 1, 1))
            order = np.argsort(-falls, kind="stable")
            explained.append(Contributions(history[order], falls[order].astype(np.float32)))
        return explained

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        """New items get no factors and the lowest bias. Metadata is not used, so changed metadata has no effect."""
        added = int((positions >= self.n_items).sum())
        if not added:
            return self
        new_factors = np.zeros((added, self.source.shape[1]), np.float32)
        model = type(self)(self.config)
        model.source, model.target = np.vstack([self.source, new_factors]), np.vstack([self.target, new_factors])
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
