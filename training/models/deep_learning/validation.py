"""Validation during training: NDCG of the held-out events, with the weights that are being trained."""

import numpy as np
import numpy.typing as npt
import torch

from feature_store.online import Histories
from training.data.splits import Holdout
from training.evaluation.metrics import ndcg, target_ranks
from training.models.deep_learning.repeat_consumption import add_repeat_scores
from training.models.deep_learning.steps import StepBuilder
from training.models.deep_learning.strategy import SingleProcess
from training.models.deep_learning.task import NextItemTask
from training.models.deep_learning.user_vectors import user_vectors

BATCH = 128
"""Histories scored at once."""


def validation_ndcg(task: NextItemTask, builder: StepBuilder, holdout: Holdout, strategy: SingleProcess) -> float:
    """Mean NDCG over the full ranking, without a cutoff: it varies less than NDCG@10, so it judges an epoch better."""
    task.eval()
    network, gains = task.network, 0.0
    everything = torch.arange(len(builder.content), device=builder.device)
    with torch.no_grad():
        items, types = task.vectors(everything, builder.content, builder.has_events)
        strengths = network.repeat_consumption.strength(items) if task.repeats else items
        by_length = strategy.shard_rows(np.argsort(holdout.histories.lengths, kind="stable"))
        for start in range(0, len(by_length), BATCH):
            batch = holdout.take(by_length[start : start + BATCH])
            users = user_vectors(network.users, batch.histories, items, types, builder.config.max_length)
            found = users[:, : items.shape[1]] @ items.T
            if task.popularity is not None:
                times = builder.popularity_index(_query_times(batch.histories, builder))
                found += torch.einsum("bk,bkc->bc", users[:, items.shape[1] :], task.popularity[times])
            scores = found.cpu().numpy()
            if task.repeats:
                add_repeat_scores(scores, batch.histories, network.repeat_consumption, strengths)
            gains += float(ndcg(target_ranks(scores, batch.targets, batch.masked)).sum())
    return strategy.all_reduce_sum(gains) / len(holdout)


def _query_times(histories: Histories, builder: StepBuilder) -> npt.NDArray[np.int64]:
    """The time at which each history is scored, int64 [b] microseconds.

    With a horizon that is the latest time, as when serving; else the time of the history's last event, 0 without any.
    """
    if builder.config.horizon_days is not None:
        return np.full(len(histories), builder.popularity.times[-1])
    last = histories.offsets[1:] - 1
    return np.where(histories.lengths > 0, histories.timestamps[np.maximum(last, 0)], 0)
