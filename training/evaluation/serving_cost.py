"""What a trained model takes in the model server, measured before it may serve."""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from training.data.splits import Holdout
from training.evaluation.champion_comparison import ServingCost
from training.evaluation.rankings import LIST_LENGTH
from training.models.contract import Recommender
from training.models.lists import top_k

N_QUERIES = 25


def serving_cost(model: Recommender, queries: Holdout, folders: Iterable[Path]) -> ServingCost | None:
    """The median time of single queries and the size of the files; None where there is no query to measure with.

    Args:
        model: the one that is served.
        queries: the first of these are scored one by one, as the model server does where it is not busy.
        folders: the saved model, and those of the base models that an ensemble serves with.
    """
    if not len(queries):
        return None
    seconds = []
    for row in range(min(N_QUERIES, len(queries))):
        history = queries.take(np.array([row])).histories
        began = time.perf_counter()
        top_k(model.score(history), LIST_LENGTH)
        seconds.append(time.perf_counter() - began)
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return ServingCost(query_ms=1_000 * float(np.median(seconds)), model_mb=size / 1e6)
