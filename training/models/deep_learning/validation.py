"""Validation during training: NDCG of the held-out events, with the weights that are being trained."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from feature_store.online import Histories
from training.data.splits import Holdout
from training.evaluation.metrics import ndcg, target_ranks
from training.models.contract import FloatMatrix
from training.models.deep_learning.repeat_consumption import add_repeat_scores
from training.models.deep_learning.steps import StepBuilder
from training.models.deep_learning.strategy import SingleProcess
from training.models.deep_learning.task import NextItemTask
from training.models.deep_learning.user_vectors import user_vectors

HISTORIES_SCORED_AT_ONCE = 128
"""Histories scored at once."""


def validation_ndcg(task: NextItemTask, builder: StepBuilder, holdout: Holdout, strategy: SingleProcess) -> float:
    """Mean NDCG over the full ranking, without a cutoff: it varies less than NDCG@10, so it judges an epoch better."""
    task.eval()
    gains = 0.0
    with torch.no_grad():
        catalogue = _Catalogue(task, builder, strategy.items_at_once(task.n_items))
        by_length = strategy.shard_rows(np.argsort(holdout.histories.lengths, kind="stable"))
        for number in range(strategy.rounds(len(holdout), HISTORIES_SCORED_AT_ONCE)):
            batch = holdout.take(by_length[number * HISTORIES_SCORED_AT_ONCE : (number + 1) * HISTORIES_SCORED_AT_ONCE])
            scores = catalogue.scores(batch.histories)
            gains += float(ndcg(target_ranks(scores, batch.targets, batch.masked)).sum()) if len(batch) else 0.0
    return strategy.all_reduce_sum(gains) / len(holdout)


class _Catalogue:
    """Scores all items. It holds the vectors of at most `at_once` items, beside those of the items in a batch.

    Where tables are divided, all processes look rows up together, so each must score the same number of batches. A
    process without histories left scores empty batches.
    """

    def __init__(self, task: NextItemTask, builder: StepBuilder, at_once: int) -> None:
        self.task, self.builder = task, builder
        n_items, n_parts = task.n_items, -(-task.n_items // at_once)
        # Each part has every n-th item, so that each process of divided tables is asked for as many rows as the others.
        self.parts = [np.arange(start, n_items, n_parts) for start in range(n_parts)]
        self.whole: tuple[torch.Tensor, torch.Tensor] | None = None
        if n_parts == 1:
            everything = torch.arange(n_items, device=builder.device)
            self.whole = task.vectors(everything, builder.content, builder.has_events)
            self.strengths = self._strengths(self.whole[0])

    def scores(self, histories: Histories) -> FloatMatrix:
        """Scores of the whole catalogue, float32 [b, n_items]."""
        if self.whole is not None:
            items, types = self.whole
            scores: FloatMatrix = self._products(self._users(histories, items, types), items, histories).cpu().numpy()
            self._add_repeats(scores, histories, self.strengths)
            return scores
        held = np.unique(histories.items).astype(np.int64)  # users' vectors and repeats need the vectors of these items
        items, types = self._vectors(held)
        strengths = self._strengths(items)
        renamed = replace(histories, items=np.searchsorted(held, histories.items).astype(np.int32))
        users = self._users(renamed, items, types) if len(histories) else None
        scores = np.empty((len(histories), self.task.n_items), np.float32)
        for part in self.parts:
            items, _ = self._vectors(part)
            if users is not None:
                scores[:, part] = self._products(users, items, histories, part).cpu().numpy()
        held_scores = scores[:, held]
        self._add_repeats(held_scores, renamed, strengths)
        scores[:, held] = held_scores
        return scores

    def _users(self, histories: Histories, items: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return user_vectors(self.task.network.users, histories, items, types, self.builder.config.max_length)

    def _products(
        self, users: torch.Tensor, items: torch.Tensor, histories: Histories, part: npt.NDArray[np.int64] | None = None
    ) -> torch.Tensor:
        """Scores without repeat consumption, [b, n]. items: [n, d] vectors; part: their positions; None: all items."""
        width = items.shape[1]
        found = users[:, :width] @ items.T
        if self.task.popularity is not None:
            times = self.builder.popularity_index(_query_times(histories, self.builder))
            popularity = self.task.popularity[times]
            popularity = popularity if part is None else popularity[:, :, torch.from_numpy(part)]
            found += torch.einsum("bk,bkc->bc", users[:, width:], popularity)
        return found

    def _strengths(self, items: torch.Tensor) -> torch.Tensor:
        return self.task.network.repeat_consumption.strength(items) if self.task.repeats else items

    def _add_repeats(self, scores: FloatMatrix, histories: Histories, strengths: torch.Tensor) -> None:
        if self.task.repeats and len(histories):
            add_repeat_scores(scores, histories, self.task.network.repeat_consumption, strengths)

    def _vectors(self, positions: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of some items and of all event types."""
        index = torch.from_numpy(positions).to(self.builder.device)
        return self.task.vectors(index, self.builder.content[index], self.builder.has_events[index])


def _query_times(histories: Histories, builder: StepBuilder) -> npt.NDArray[np.int64]:
    """The time at which each history is scored, int64 [b] microseconds.

    With a horizon that is the latest time, as when serving; else the time of the history's last event, 0 without any.
    """
    if builder.config.horizon_days is not None:
        return np.full(len(histories), builder.popularity.times[-1])
    last = histories.offsets[1:] - 1
    return np.where(histories.lengths > 0, histories.timestamps[np.maximum(last, 0)], 0)
