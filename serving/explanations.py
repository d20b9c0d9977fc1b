"""Why an item is in a list: the family that contributed most to its score, and a sentence for the user."""

from collections.abc import Mapping

import numpy as np

from training.models.contract import FloatMatrix, Positions

MAX_EVIDENCE = 3

FROM_EVIDENCE = {
    "collaborative": "Users similar to you also liked this",
    "item-knn": "Often chosen together with items you chose",
    "content-based": "Similar in content to items you chose",
    "deep-learning": "Follows from the order of your recent activity",
    "popularity": "Popular with all users right now",
}
FROM_HISTORY = "Based on your interaction history"
WITHOUT_HISTORY = "Popular with all users right now"


def main_families(component_scores: Mapping[str, FloatMatrix], family: str, items: Positions) -> list[list[str]]:
    """The family that contributed more than half of each item's score; `family` itself where none did.

    component_scores: float32 [batch, n] each, as `Recommender.component_scores` gives them; a negative score
    contributes nothing. items: int32 [batch, k], NO_ITEM allowed. Returns [batch][k] names.
    """
    names = list(component_scores)
    if len(names) == 1:
        return [names * items.shape[1] for _ in items]
    rows = np.arange(len(items))[:, np.newaxis]
    # [families, batch, k]
    shares = np.stack([np.maximum(scores[rows, items], 0) for scores in component_scores.values()])
    total = shares.sum(axis=0)
    largest = shares.argmax(axis=0)
    majority = np.take_along_axis(shares, largest[np.newaxis], axis=0)[0] > total / 2
    return [
        [names[name] if is_majority else family for name, is_majority in zip(row, majorities, strict=True)]
        for row, majorities in zip(largest.tolist(), majority.tolist(), strict=True)
    ]


def text(algorithm: str, has_history: bool, has_evidence: bool) -> str:
    """The sentence shown with an item. It refers to items of the user only where some of them are evidence."""
    if has_evidence:
        return FROM_EVIDENCE.get(algorithm, FROM_HISTORY)
    return FROM_HISTORY if has_history and algorithm != "popularity" else WITHOUT_HISTORY
