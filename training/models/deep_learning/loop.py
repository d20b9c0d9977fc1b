"""The training loop, over TorchRec embeddings. The only module here that imports torchrec; serving never loads it."""

import math
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor, nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor

from feature_store.online import Histories
from training.dataset import Dataset
from training.metrics import target_ranks
from training.models.contract import FloatMatrix, RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.network import N_TYPES, Network
from training.models.deep_learning.sequences import Batch, epoch
from training.models.deep_learning.task import NextItemTask, sample_log_chance
from training.models.deep_learning.trends import trends
from training.models.deep_learning.user_vectors import user_vectors
from training.splits import Holdout

log = structlog.get_logger(__name__)

HISTORY, CATALOGUE, TYPE = "history", "catalogue", "type"
EVALUATE_USERS = 1_000


@dataclass
class Progress:
    """What a fit went through, for the record."""

    losses: list[float] = field(default_factory=list)  # one an epoch
    validation: list[float] = field(default_factory=list)  # NDCG of the held-out events, one an epoch
    best_epoch: int = 0  # 1-based; 0 without validation
    stopped: str = ""  # "time" or "patience"; empty: after the last epoch


class Trainer:
    """Learns network and embeddings in place. Vectors go in and come out as plain arrays.

    Args:
        network: trained in place, left on the CPU in evaluation mode.
        ids: float32 [n_items, d] to start from, or None to start anew.
        content: float32 [n_items, content_width].
        dataset: events to learn from; an item without any is known by its content alone.
    """

    def __init__(
        self,
        network: Network,
        ids: FloatMatrix | None,
        content: FloatMatrix,
        dataset: Dataset,
        config: DeepLearningConfig,
        options: RuntimeOptions,
    ) -> None:
        self.config, self.options, self.dataset = config, options, dataset
        self.device = torch.device(options.device)
        self.network = network.to(self.device)
        self.task = NextItemTask(self.network)
        self.content = torch.from_numpy(content).to(self.device)
        counts = np.bincount(dataset.interactions.items, minlength=dataset.n_items)
        self.counts = torch.from_numpy(counts).to(self.device)
        self.known = np.flatnonzero(counts)
        self.trends = trends(dataset.interactions, dataset.n_items, config.trend_half_lives)
        self.trend_values = torch.from_numpy(self.trends.values).to(self.device)
        tables = [
            EmbeddingConfig(
                name="item",
                embedding_dim=config.dimensions,
                num_embeddings=dataset.n_items,
                feature_names=[HISTORY, CATALOGUE],
                init_fn=_init,
            ),
            EmbeddingConfig(
                name="event_type",
                embedding_dim=config.dimensions,
                num_embeddings=N_TYPES,
                feature_names=[TYPE],
                init_fn=_init,
            ),
        ]
        self.embeddings = EmbeddingCollection(tables=tables, device=self.device)
        if ids is not None:
            with torch.no_grad():
                self._table("item").copy_(torch.from_numpy(ids))
                self._table("event_type").copy_(network.types)
        self.rng = np.random.default_rng(options.seed)

    def run(self, epochs: int, learning_rate: float, seconds: float, holdout: Holdout | None = None) -> Progress:
        """Train for at most so many epochs and seconds; with a hold-out, stop early and keep the best epoch.

        The rate falls along a cosine over the epochs or over the time, whichever is further on, so that a fit that
        is short of time still ends with a low rate. Where time does not bind, the seed alone decides the outcome.
        """
        began = time.perf_counter()
        progress = Progress()
        best: dict[str, Tensor] = {}
        parameters = [*self.embeddings.parameters(), *(p for p in self.network.parameters() if p.requires_grad)]
        # Only matrices decay: what weighs the trends and what shifts or scales is no place to overfit.
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=learning_rate)
        step = 0
        for number in range(1, epochs + 1):
            self.task.train()
            total, seen = 0.0, 0
            for share, batch in epoch(
                self.dataset.interactions, self.config.max_length + 1, self.config.batch_size, self.rng
            ):
                elapsed = (time.perf_counter() - began) / seconds
                if elapsed > 1:
                    progress.stopped = "time"
                    break
                done = max((number - 1 + share) / epochs, elapsed)
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate * _rate(step, done)
                loss = self._loss(batch)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                weight = int(batch.counted.sum())
                total, seen, step = total + loss.item() * weight, seen + weight, step + 1
            if not seen:
                break  # time ran out between two epochs
            progress.losses.append(total / seen)
            if holdout is not None:
                progress.validation.append(self._validate(holdout))
                if not best or progress.validation[-1] > progress.validation[progress.best_epoch - 1]:
                    progress.best_epoch, best = number, self._state()
            log.debug("epoch", number=number, loss=progress.losses[-1], ndcg=progress.validation[-1:], step=step)
            if progress.stopped:
                break
            if self.options.progress is not None:
                self.options.progress(number, epochs, progress.validation[-1] if progress.validation else None)
            if holdout is not None and number - progress.best_epoch >= self.config.patience:
                progress.stopped = "patience"
                break
        if best:
            self._restore(best)
        return progress

    def export(self) -> FloatMatrix:
        """The id embeddings as float32 [n_items, d], zero where an item had no event; the network goes to the CPU."""
        with torch.no_grad():
            self.network.types.copy_(self._table("event_type"))
            ids = self._table("item") * (self.counts > 0).unsqueeze(-1)
        self.network.cpu().eval()
        return ids.detach().cpu().numpy().copy()

    def _loss(self, batch: Batch) -> Tensor:
        config, device = self.config, self.device
        targets = batch.items[batch.counted]
        if len(self.known) <= config.candidates:
            candidates, log_chance = self.known, None
        else:
            drawn = self.rng.choice(self.known, config.candidates, replace=False)
            candidates = np.union1d(drawn, targets)
            chance = sample_log_chance(self.counts[torch.from_numpy(self.known)], len(targets), len(drawn))
            log_chance = chance[torch.from_numpy(np.searchsorted(self.known, candidates)).to(device)]
        lengths = torch.from_numpy(batch.lengths)
        valid = torch.arange(batch.items.shape[1]) < lengths.unsqueeze(1)
        items, types = torch.from_numpy(batch.items), torch.from_numpy(batch.types)
        whole = torch.zeros(len(lengths), dtype=torch.int64)
        whole[0] = len(candidates)  # one jagged feature for the whole step, carried by its first row
        features = KeyedJaggedTensor(
            keys=[HISTORY, TYPE, CATALOGUE],
            values=torch.cat([items[valid], types[valid], torch.from_numpy(candidates)]),
            lengths=torch.cat([lengths, lengths, whole]),
        ).to(device)
        vectors = self.embeddings(features)
        kept = (self.counts > 0).float()
        if config.id_dropout:
            kept = kept * (torch.rand(len(kept), device=device) >= config.id_dropout)
        valid = valid.to(device)
        tower = self.network.items
        flat, chosen = items[valid.cpu()].to(device), torch.from_numpy(candidates).to(device)
        return self.task(
            items=_padded(tower(vectors[HISTORY].values(), self.content[flat], kept[flat]), valid),
            types=_padded(vectors[TYPE].values(), valid),
            weights=torch.from_numpy(batch.weights).to(device),
            candidates=tower(vectors[CATALOGUE].values(), self.content[chosen], kept[chosen]),
            targets=torch.from_numpy(np.searchsorted(candidates, batch.items)).to(device),
            counted=torch.from_numpy(batch.counted).to(device),
            trends=self.trend_values if len(chosen) == len(self.counts) else self.trend_values[:, :, chosen],
            moments=torch.from_numpy(self.trends.at(batch.timestamps)).to(device),
            log_chance=log_chance,
        )

    def _validate(self, holdout: Holdout) -> float:
        """NDCG over the full ranking, without a cutoff: smoother than NDCG@10 and so the better judge of an epoch."""
        self.network.eval()
        gains: list[npt.NDArray[np.float64]] = []
        with torch.inference_mode():
            known = (self.counts > 0).float()
            items = self.network.items(self._table("item"), self.content, known)
            types = self._table("event_type")
            for start in range(0, len(holdout), 256):
                batch = holdout.take(np.arange(start, min(start + 256, len(holdout))))
                users = user_vectors(self.network.users, batch.histories, items, types, self.config.max_length)
                moments = self.trends.at(_last_times(batch.histories))
                pull = self.trend_values[torch.from_numpy(moments).to(self.device)]  # [b, k, n_items]
                found = users[:, : items.shape[1]] @ items.T + (users[:, items.shape[1] :, None] * pull).sum(1)
                ranks = target_ranks(found.cpu().numpy(), batch.targets, batch.masked).ranks
                gains.append(1 / np.log2(ranks + 1))
        return float(np.concatenate(gains).mean())

    def _table(self, name: str) -> Tensor:
        return self.embeddings.embeddings[name].weight

    def _state(self) -> dict[str, Tensor]:
        both = {**self.network.state_dict(prefix="network."), **self.embeddings.state_dict(prefix="embeddings.")}
        return {name: value.detach().clone() for name, value in both.items()}

    def _restore(self, state: dict[str, Tensor]) -> None:
        for prefix, module in (("network.", self.network), ("embeddings.", self.embeddings)):
            module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _last_times(histories: Histories) -> npt.NDArray[np.int64]:
    """When each history's user was last seen, int64 [b]; 0 for an empty one."""
    last = histories.offsets[1:] - 1
    return np.where(histories.lengths > 0, histories.timestamps[np.maximum(last, 0)], 0)


def _init(weight: Tensor) -> Tensor:
    return nn.init.normal_(weight, std=0.02)


def _padded(values: Tensor, valid: Tensor) -> Tensor:
    """Jagged values [n, d] laid out as [b, l, d], zero where nothing is."""
    padded = values.new_zeros(*valid.shape, values.shape[-1])
    padded[valid] = values
    return padded


def _rate(step: int, done: float, warmup: int = 50) -> float:
    """Share of the peak rate: a linear warm-up, a cosine down to a twentieth. done: share of the fit, in [0, 1]."""
    return min(1.0, (step + 1) / warmup) * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)
