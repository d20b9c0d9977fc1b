"""The training loop: optimiser, schedule, weight averaging, early stopping, checkpoints."""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor

from feature_store import columns as c
from feature_store.online import Histories
from training.data.dataset import Dataset
from training.data.splits import Holdout
from training.evaluation.metrics import ndcg, target_ranks
from training.models.contract import FloatMatrix, RuntimeOptions
from training.models.deep_learning.checkpoint import Checkpoint, key_of, optimiser_tensors, restore_optimiser
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.network import Network
from training.models.deep_learning.recent_popularity import trends
from training.models.deep_learning.repeat_consumption import add_again, repeats_count, share_of_repeats
from training.models.deep_learning.sequences import Batch, epoch
from training.models.deep_learning.sharding import OneProcess
from training.models.deep_learning.task import NextItemTask, Step, sample_log_chance
from training.models.deep_learning.user_vectors import user_vectors

log = structlog.get_logger(__name__)

_REPEATS = 0.01
"""Data with fewer repeats than this has none: what a user has seen is not what they choose next."""
_BEHIND = 0.1
"""Share of a fit by which time must run ahead of the epochs before it sets the rate: below, no clock is heard."""


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
        crew: the processes that share the work; in each the loop goes the same way.
    """

    def __init__(
        self,
        network: Network,
        ids: FloatMatrix | None,
        content: FloatMatrix,
        dataset: Dataset,
        config: DeepLearningConfig,
        options: RuntimeOptions,
        crew: OneProcess,
    ) -> None:
        self.config, self.options, self.dataset, self.crew = config, options, dataset, crew
        self.device = torch.device(options.device)
        self.network = network.to(self.device)
        # A copy: sums of products depend on how memory is aligned.
        self.content = torch.tensor(content, device=self.device)
        counts = np.bincount(dataset.interactions.items, minlength=dataset.n_items)
        self.counts = torch.from_numpy(counts).to(self.device)
        self.learned = (self.counts > 0).float()
        self.known = torch.from_numpy(np.flatnonzero(counts)).to(self.device)
        self.trends = trends(dataset.interactions, dataset.n_items, config.trend_half_lives)
        moves = self.trends.values.any()
        self.repeats = repeats_count(dataset.interactions, config)
        self.network.again.requires_grad_(self.repeats)
        self.task = NextItemTask(
            self.network,
            dataset.n_items,
            torch.from_numpy(self.trends.values).to(self.device) if moves else None,
            share_of_repeats(dataset.interactions) < _REPEATS if config.mask_past is None else config.mask_past,
            self.repeats,
            config.precision == "bfloat16",
            self.device,
        )
        if ids is not None:
            with torch.no_grad():
                self._table("item").copy_(torch.from_numpy(ids))
                self._table("event_type").copy_(network.types)
        self.learner, self.parameters = crew.place(self.task)
        self.average = [p.detach().clone() for p in self.parameters]
        self.rng = np.random.default_rng(options.seed)

    def run(
        self, stage: str, epochs: int, learning_rate: float, seconds: float, holdout: Holdout | None = None
    ) -> Progress:
        """Train for at most so many epochs and seconds; with a hold-out, stop early and keep the best epoch.

        The rate falls along a cosine over the epochs, or over the time where that runs ahead, so that a fit that is
        short of time still ends with a low rate. Where time does not bind, the seed alone decides the outcome.
        What is judged and kept is the moving average of the weights (Izmailov et al., 2018). With a working folder,
        an interrupted run of the same stage goes on after the last epoch it ended.
        """
        # Only matrices decay: what weighs the trends and what shifts or scales is no place to overfit.
        groups = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in self.parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
        checkpoint = self._checkpoint(stage, epochs, learning_rate)
        progress, best, step, elapsed = self._resume(checkpoint, optimiser)
        began = time.perf_counter() - elapsed
        for number in range(len(progress.losses) + 1, epochs + 1):
            if progress.stopped:
                break
            self.task.train()
            total, seen = 0.0, 0
            for share, batch in epoch(
                self.dataset.interactions,
                self.config.max_length + 1,
                self.config.batch_size,
                self.rng,
                None if self.config.horizon_days is None else int(self.config.horizon_days * c.MICROS_PER_DAY),
                self.config.asked,
            ):
                elapsed = self.crew.first((time.perf_counter() - began) / seconds)
                if elapsed > 1:
                    progress.stopped = "time"
                    break
                done = (number - 1 + share) / epochs
                rate = learning_rate * _rate(step, elapsed if elapsed > done + _BEHIND else done)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                part, weight = self.crew.share(batch)
                loss = self.learner(self._step(part)) * weight
                optimiser.zero_grad(set_to_none=True)
                self.crew.backward(loss)
                self.crew.clip(self.parameters, 1.0)
                optimiser.step()
                self._follow(step)
                places = int(batch.counted.sum())
                total, seen, step = total + loss.item() * places, seen + places, step + 1
            if not seen:
                break  # time ran out between two epochs
            progress.losses.append(self.crew.sum(total) / seen)
            if holdout is not None:
                self._swap()
                progress.validation.append(self._validate(holdout))
                if not best or progress.validation[-1] > progress.validation[progress.best_epoch - 1]:
                    progress.best_epoch, best = number, [p.detach().clone() for p in self.parameters]
                self._swap()
            log.info(
                "epoch",
                number=number,
                step=step,
                loss=round(progress.losses[-1], 4),
                ndcg=progress.validation[-1:],
                seconds=round(time.perf_counter() - began),
            )
            if not progress.stopped and holdout is not None and number - progress.best_epoch >= self.config.patience:
                progress.stopped = "patience"
            if checkpoint is not None:
                self._write(checkpoint, optimiser, progress, best, step, time.perf_counter() - began)
            if self.options.progress is not None and not progress.stopped:
                self.options.progress(number, epochs, progress.validation[-1] if progress.validation else None)
        _copy(best or self.average, self.parameters)
        return progress

    def export(self) -> FloatMatrix:
        """The id embeddings as float32 [n_items, d], zero where an item had no event; the network goes to the CPU."""
        with torch.no_grad():
            ids, types = self.task.lookup(torch.arange(self.dataset.n_items, device=self.device))
            self.network.types.copy_(types)
            ids = ids * self.learned.unsqueeze(-1)
        self.network.cpu().eval()
        return ids.detach().cpu().numpy().copy()

    def _step(self, batch: Batch) -> Step:
        device = self.device
        items = torch.from_numpy(batch.items).to(device)
        counted = torch.from_numpy(batch.counted).to(device)
        if len(self.known) <= self.config.candidates:
            touched, log_chance = self.known, None
        else:
            drawn = self.known[
                torch.from_numpy(self.rng.choice(len(self.known), self.config.candidates, False)).to(device)
            ]
            valid = np.arange(batch.items.shape[1]) < batch.lengths[:, None]
            shown = items[torch.from_numpy(valid).to(device)]  # those asked for and, to be told from them, all others
            touched = torch.unique(torch.cat([drawn, shown]))
            chance = sample_log_chance(self.counts[self.known], len(shown), len(drawn))
            log_chance = chance[torch.searchsorted(self.known, touched)]
        known = self.learned
        if self.config.id_dropout:
            known = known * (torch.rand(len(known), device=device) >= self.config.id_dropout)
        return Step(
            touched=touched,
            content=self.content[touched],
            known=known[touched],
            items=torch.searchsorted(touched, items).clamp_max(len(touched) - 1),  # padding may be none of them
            types=torch.from_numpy(batch.types).to(device),
            weights=torch.from_numpy(batch.weights).to(device),
            lengths=torch.from_numpy(batch.lengths).to(device),
            times=torch.from_numpy(batch.timestamps).to(device),
            counted=counted,
            before=torch.from_numpy(batch.before).to(device),
            moments=torch.from_numpy(self.trends.at(batch.moments)).to(device),
            log_chance=log_chance,
        )

    def _checkpoint(self, stage: str, epochs: int, learning_rate: float) -> Checkpoint | None:
        if self.options.workdir is None:
            return None
        key = key_of(self.dataset.interactions, self.config, self.options, stage, epochs, learning_rate)
        return Checkpoint(self.options.workdir / f"{stage}{self.crew.name}.safetensors", key)

    def _resume(
        self, checkpoint: Checkpoint | None, optimiser: torch.optim.Optimizer
    ) -> tuple[Progress, list[Tensor], int, float]:
        """Progress, best weights, steps and seconds so far; weights, optimiser and draws become those of then."""
        found = checkpoint.read() if checkpoint is not None else None
        ended = len(found[1]["progress"]["losses"]) if found is not None else 0
        if not self.crew.agrees(ended) or found is None:
            return Progress(), [], 0, 0.0
        tensors, facts = found
        n = len(self.parameters)
        _copy([tensors[f"weights.{i}"] for i in range(n)], self.parameters)
        _copy([tensors[f"average.{i}"] for i in range(n)], self.average)
        best = [tensors[f"best.{i}"].to(self.device) for i in range(n) if f"best.{i}" in tensors]
        restore_optimiser(optimiser, self.parameters, tensors)
        torch.set_rng_state(tensors["draws"])
        self.rng.bit_generator.state = facts["draws"]
        progress = Progress(**facts["progress"])
        log.info("goes on from a checkpoint", epochs=len(progress.losses))
        return progress, best, facts["step"], facts["seconds"]

    def _write(
        self,
        checkpoint: Checkpoint,
        optimiser: torch.optim.Optimizer,
        progress: Progress,
        best: list[Tensor],
        step: int,
        seconds: float,
    ) -> None:
        parts: dict[str, list[Tensor]] = {"weights": self.parameters, "average": self.average, "best": best}
        tensors = {f"{part}.{i}": value for part, values in parts.items() for i, value in enumerate(values)}
        tensors |= optimiser_tensors(optimiser, self.parameters) | {"draws": torch.get_rng_state()}
        draws = self.rng.bit_generator.state
        facts = {"progress": asdict(progress), "step": step, "seconds": seconds, "draws": draws}
        checkpoint.write(tensors, facts)

    def _follow(self, step: int) -> None:
        """Move the average towards the weights; young averages forget faster, so that the start leaves no trace."""
        kept = min(self.config.averaging, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - kept)

    def _swap(self) -> None:
        """Weights become their average and back."""
        weights = [p.detach().clone() for p in self.parameters]
        _copy(self.average, self.parameters)
        _copy(weights, self.average)

    def _validate(self, holdout: Holdout) -> float:
        """NDCG over the full ranking, without a cutoff: smoother than NDCG@10 and so the better judge of an epoch."""
        self.task.eval()
        gains = 0.0
        everything = torch.arange(self.dataset.n_items, device=self.device)
        with torch.no_grad():
            items, types = self.task.vectors(everything, self.content, self.learned)
            strengths = self.network.again.strength(items) if self.repeats else items
            by_length = self.crew.rows(np.argsort(holdout.histories.lengths, kind="stable"))
            for start in range(0, len(by_length), 128):
                batch = holdout.take(by_length[start : start + 128])
                users = user_vectors(self.network.users, batch.histories, items, types, self.config.max_length)
                found = users[:, : items.shape[1]] @ items.T
                if self.task.trends is not None:
                    moments = torch.from_numpy(self.trends.at(self._asked_at(batch.histories))).to(self.device)
                    found += torch.einsum("bk,bkc->bc", users[:, items.shape[1] :], self.task.trends[moments])
                scored = found.cpu().numpy()
                if self.repeats:
                    add_again(scored, batch.histories, self.network.again, strengths)
                gains += float(ndcg(target_ranks(scored, batch.targets, batch.masked)).sum())
        return self.crew.sum(gains) / len(holdout)

    def _asked_at(self, histories: Histories) -> npt.NDArray[np.int64]:
        """When each history is asked about, int64 [b]: now where a span ahead is asked for, else when it ends."""
        if self.config.horizon_days is not None:
            return np.full(len(histories), self.trends.moments[-1])
        return _last_times(histories)

    def _table(self, name: str) -> Tensor:
        return self.task.embeddings.embeddings[name].weight


def _copy(source: list[Tensor], target: list[Any]) -> None:
    with torch.no_grad():
        torch._foreach_copy_(target, source)


def _last_times(histories: Histories) -> npt.NDArray[np.int64]:
    """When each history's user was last seen, int64 [b]; 0 for an empty one."""
    last = histories.offsets[1:] - 1
    return np.where(histories.lengths > 0, histories.timestamps[np.maximum(last, 0)], 0)


def _rate(step: int, done: float, warmup: int = 50) -> float:
    """Share of the peak rate: a linear warm-up, a cosine down to a twentieth. done: share of the fit, in [0, 1]."""
    return min(1.0, (step + 1) / warmup) * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)
