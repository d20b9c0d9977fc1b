"""Online accuracy: how well a model that serves ranks what users chose while it served."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.splits import Holdout
from training.evaluation import metrics
from training.models.contract import Positions, Recommender


@dataclass(frozen=True)
class OnlineAccuracy:
    """The accuracy of a released model on interactions that came while it served."""

    auc: float  # mean over users of the probability that a chosen item outranks one drawn from the catalogue
    users: int  # with an AUC


def measure_online_accuracy(
    model: Recommender, holdout: Holdout, catalogue: Positions, batch_users: int = 256
) -> OnlineAccuracy | None:
    """The AUC of a model on queries that it was not fitted on; None where no query has a target.

    Args:
        model: scores the catalogue.
        holdout: its histories hold the model's item positions; its targets and masks hold places in `catalogue`.
        catalogue: int32 [n], ascending positions of the items that may be recommended.
        batch_users: queries scored at once; bounds memory to a few matrices of [batch_users, n].
    """
    batches: list[npt.NDArray[np.float64]] = []
    for rows in holdout.batches(batch_users):
        batch = holdout.take(rows)
        ranks = metrics.target_ranks(model.score(batch.histories, catalogue), batch.targets, batch.masked)
        batches.append(metrics.per_user_metrics(ranks)["auc"])
    values = np.concatenate(batches) if batches else np.empty(0)
    values = values[~np.isnan(values)]
    return OnlineAccuracy(float(values.mean()), len(values)) if len(values) else None
