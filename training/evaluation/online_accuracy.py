"""How well a model that serves ranks what users went on to choose."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.splits import Holdout
from training.evaluation import metrics
from training.models.contract import Positions, Recommender


@dataclass(frozen=True)
class OnlineAccuracy:
    auc: float  # mean over users of the chance that a chosen item outranks one drawn from the catalogue
    users: int


def measure_online_accuracy(
    model: Recommender, holdout: Holdout, catalogue: Positions, batch_users: int = 256
) -> OnlineAccuracy | None:
    """The AUC of a model on questions that it was not fitted on; None where no question has an answer.

    Args:
        holdout: histories by the model's item positions; targets and masks by place in `catalogue`.
        catalogue: int32 [n], ascending positions of the items that may be shown.
        batch_users: users scored at once; bounds memory to a few matrices of [batch_users, n].
    """
    parts: list[npt.NDArray[np.float64]] = []
    for start in range(0, len(holdout), batch_users):
        batch = holdout.take(np.arange(start, min(start + batch_users, len(holdout))))
        scores = model.score(batch.histories, catalogue)
        found = metrics.target_ranks(scores, batch.targets, batch.masked)
        parts.append(metrics.per_user_metrics(found)["auc"])
    values = np.concatenate(parts) if parts else np.empty(0)
    values = values[~np.isnan(values)]
    return OnlineAccuracy(float(values.mean()), len(values)) if len(values) else None
