"""Whether evidence is true: does a score fall without the item that is said to weigh most in it?"""

import numpy as np

from feature_store.online import Histories
from training.models.contract import NO_ITEM, Recommender

LISTED = 3


def agreement(model: Recommender, histories: Histories) -> float | None:
    """The share of the first items of these users' lists whose score falls without their first evidence.

    None where no evidence is given.
    """
    lists = model.recommend(histories, LISTED).items
    named = model.evidence(histories, lists, top=1)[:, :, 0]
    rows, columns = np.nonzero(named != NO_ITEM)
    if not len(rows):
        return None
    asked, items = histories.take(rows), lists[rows, columns]
    places = np.arange(len(rows))
    before = model.score(asked)[places, items]
    after = model.score(asked.without_items(named[rows, columns]))[places, items]
    return float((after < before).mean())
