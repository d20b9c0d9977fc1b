"""The training loop: optimiser, learning-rate schedule, weight averaging (EMA), early stopping and checkpoints."""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import structlog
import torch
from torch import Tensor

from feature_store import columns as c
from training.data.dataset import Dataset
from training.data.splits import Holdout
from training.models.contract import FloatMatrix, RuntimeOptions
from training.models.deep_learning.checkpoint import Checkpoint, key_of, optimiser_tensors, restore_optimiser
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.network import Network
from training.models.deep_learning.recent_popularity import recent_popularity
from training.models.deep_learning.repeat_consumption import learns_repeats
from training.models.deep_learning.sequences import epoch
from training.models.deep_learning.steps import StepBuilder
from training.models.deep_learning.strategy import SingleProcess
from training.models.deep_learning.task import NextItemTask
from training.models.deep_learning.validation import validation_ndcg

log = structlog.get_logger(__name__)

_MASKED_BELOW = 0.01
"""The history is masked by default where fewer events than this share repeat an item of their user."""
_TIME_LEAD = 0.1
"""The schedule follows the share of elapsed time only where it exceeds the share of finished epochs by this much, so
that a fit with enough time depends on its seed alone."""


@dataclass
class Progress:
    """The course of one stage of a fit, for the training record."""

    losses: list[float] = field(default_factory=list)  # one per epoch
    validation: list[float] = field(default_factory=list)  # NDCG of the held-out events, one per epoch
    best_epoch: int = 0  # 1-based; 0 without validation
    stopped: str = ""  # "time" or "patience"; empty: after the last epoch


class Trainer:
    """Trains network and embeddings in place. Embeddings are passed in and out as plain arrays.

    Args:
        network: trained in place, left on the CPU in evaluation mode.
        ids: float32 [n_items, d] to start from, or None to start anew.
        content: float32 [n_items, content_width].
        dataset: events to learn from; content alone describes an item without events.
        config, options: as in `DeepLearning.fit`.
        strategy: one process, or the processes that share the work.
    """

    def __init__(
        self,
        network: Network,
        ids: FloatMatrix | None,
        content: FloatMatrix,
        dataset: Dataset,
        config: DeepLearningConfig,
        options: RuntimeOptions,
        strategy: SingleProcess,
    ) -> None:
        self.config, self.options, self.dataset, self.strategy = config, options, dataset, strategy
        self.device = torch.device(options.device)
        self.network = network.to(self.device)
        self.rng = np.random.default_rng(options.seed)
        popularity = recent_popularity(dataset.interactions, dataset.n_items, config.popularity_half_lives)
        placed = strategy.content_tensor(content, self.device)
        self.steps = StepBuilder(dataset, placed, popularity, config, self.device, self.rng)
        repeats = learns_repeats(dataset, config)
        self.network.repeat_consumption.requires_grad_(repeats)
        mask_history = config.mask_history
        if mask_history is None:
            mask_history = dataset.repeat_share < _MASKED_BELOW
        self.task = NextItemTask(
            self.network,
            dataset.n_items,
            torch.from_numpy(popularity.values).to(self.device) if popularity.values.any() else None,
            mask_history,
            repeats,
            config.precision == "bfloat16" or (config.precision == "auto" and _multiplies_bfloat16(self.device)),
            strategy.table_device(self.device),
        )
        self.module, self.parameters = strategy.prepare(self.task, ids)
        self.average = [p.detach().clone() for p in self.parameters]

    def run(
        self, stage: str, epochs: int, learning_rate: float, seconds: float, holdout: Holdout | None = None
    ) -> Progress:
        """Train for at most this many epochs and seconds; with a hold-out, stop early and keep the best epoch.

        The learning rate follows a cosine over the epochs, or over the time where time runs out first, so that a fit
        that is short of time still ends with a low rate. Validation uses and the result keeps the moving average of
        the weights (Izmailov et al., 2018). With a working folder, an interrupted run of the same stage resumes after
        its last finished epoch.
        """
        # Weight decay only on matrices; the weights of popularity, shifts and scales are too few to overfit.
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
            total, n_targets = 0.0, 0
            for share, batch in epoch(
                self.dataset.interactions,
                self.config.max_length + 1,
                self.config.batch_size,
                self.rng,
                None if self.config.horizon_days is None else int(self.config.horizon_days * c.MICROS_PER_DAY),
                self.config.target_share,
            ):
                elapsed = self.strategy.broadcast((time.perf_counter() - began) / seconds)
                if elapsed > 1:
                    progress.stopped = "time"
                    break
                done = (number - 1 + share) / epochs
                rate = learning_rate * _schedule(step, elapsed if elapsed > done + _TIME_LEAD else done)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                part, weight = self.strategy.shard_batch(batch)
                loss = self.module(self.steps.build(part)) * weight
                optimiser.zero_grad(set_to_none=True)
                self.strategy.backward(loss)
                self.strategy.clip_gradients(self.parameters, 1.0)
                optimiser.step()
                self._update_average(step)
                targets = int(batch.loss_mask.sum())
                total, n_targets, step = total + loss.item() * targets, n_targets + targets, step + 1
            if not n_targets:
                break  # time ran out between two epochs
            progress.losses.append(self.strategy.all_reduce_sum(total) / n_targets)
            if holdout is not None:
                self._swap_average()
                progress.validation.append(validation_ndcg(self.task, self.steps, holdout, self.strategy))
                if not best or progress.validation[-1] > progress.validation[progress.best_epoch - 1]:
                    progress.best_epoch, best = number, [p.detach().clone() for p in self.parameters]
                self._swap_average()
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
        """The id embeddings as float32 [n_items, d], zero where an item had no event; the network goes to the CPU.

        Of several processes only the first one gets them; the others get [0, d].
        """
        with torch.no_grad():
            ids, types = self.strategy.export_tables(self.task)
            if len(ids):
                self.network.types.copy_(types)
                ids = ids * self.steps.has_events.unsqueeze(-1)
        self.network.cpu().eval()
        return ids.detach().cpu().numpy().copy()

    def _checkpoint(self, stage: str, epochs: int, learning_rate: float) -> Checkpoint | None:
        if self.options.workdir is None:
            return None
        key = key_of(self.dataset.interactions, self.config, self.options, stage, epochs, learning_rate)
        path = self.options.workdir / f"{stage}{self.strategy.file_suffix}.safetensors"
        return Checkpoint(path, key, keeps_two=self.strategy.size > 1)

    def _resume(
        self, checkpoint: Checkpoint | None, optimiser: torch.optim.Optimizer
    ) -> tuple[Progress, list[Tensor], int, float]:
        """Restore the last checkpoint that all processes have.

        Returns:
            Progress, best weights, steps and seconds so far. Weights, optimiser and random states are set in place.
        """
        if checkpoint is None:
            return Progress(), [], 0, 0.0
        found = checkpoint.read(int(self.strategy.minimum(checkpoint.newest_step())))
        if not self.strategy.minimum(found is not None) or found is None:
            return Progress(), [], 0, 0.0
        tensors, facts = found
        n = len(self.parameters)
        _copy([tensors[f"weights.{i}"] for i in range(n)], self.parameters)
        _copy([tensors[f"average.{i}"] for i in range(n)], self.average)
        best = [tensors[f"best.{i}"].to(self.device) for i in range(n) if f"best.{i}" in tensors]
        restore_optimiser(optimiser, self.parameters, tensors)
        torch.set_rng_state(tensors["random_state"])
        self.rng.bit_generator.state = facts["random_state"]
        progress = Progress(**facts["progress"])
        log.info("resumes from a checkpoint", epochs=len(progress.losses))
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
        states: dict[str, list[Tensor]] = {"weights": self.parameters, "average": self.average, "best": best}
        tensors = {f"{name}.{i}": value for name, values in states.items() for i, value in enumerate(values)}
        tensors |= optimiser_tensors(optimiser, self.parameters) | {"random_state": torch.get_rng_state()}
        random_state = self.rng.bit_generator.state
        facts = {"progress": asdict(progress), "step": step, "seconds": seconds, "random_state": random_state}
        checkpoint.write(tensors, facts)

    def _update_average(self, step: int) -> None:
        """Move the average towards the weights; its decay starts low, so that the initial weights leave no trace."""
        kept = min(self.config.weight_averaging, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - kept)

    def _swap_average(self) -> None:
        """Exchange the weights and their average."""
        weights = [p.detach().clone() for p in self.parameters]
        _copy(self.average, self.parameters)
        _copy(weights, self.average)


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 natively; elsewhere they are slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def _copy(source: list[Tensor], target: list[Any]) -> None:
    with torch.no_grad():
        torch._foreach_copy_(target, source)


def _schedule(step: int, done: float, warmup: int = 50) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to a twentieth. done: share of the fit."""
    return min(1.0, (step + 1) / warmup) * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)
