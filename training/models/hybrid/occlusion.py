"""Occlusion check of evidence: whether a score falls without the history item that is given as its first evidence."""

import numpy as np

from feature_store.online import Histories
from training.models.contract import Recommender
from training.models.lists import NO_ITEM

LISTED = 3


def agreement(model: Recommender, histories: Histories) -> float | None:
    """The share of the top items of these users whose score falls without the first evidence that is given for them.

    None where the model gives no evidence.
    """
    lists = model.recommend(histories, LISTED).items
    named = model.evidence(histories, lists, top=1)[:, :, 0]
    rows, columns = np.nonzero(named != NO_ITEM)
    if not len(rows):
        return None
    explained, items = histories.take(rows), lists[rows, columns]
    places = np.arange(len(rows))
    before = model.score(explained)[places, items]
    after = model.score(explained.without_items(named[rows, columns]))[places, items]
    return float((after < before).mean())
