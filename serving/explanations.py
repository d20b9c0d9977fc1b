"""Why an item is in a list: the family that carried it, the user's items that weigh most in it, and a sentence."""

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


def carriers(component_scores: Mapping[str, FloatMatrix], family: str, items: Positions) -> list[list[str]]:
    """The family that carried more than half of each item's score, or the ensemble's own name where none did.

    component_scores: float32 [batch, n] each, as `Recommender.component_scores` gives them; a negative one carries
    nothing. items: int32 [batch, k], NO_ITEM allowed. Returns [batch][k] names.
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
        [names[name] if carried else family for name, carried in zip(row, majorities, strict=True)]
        for row, majorities in zip(largest.tolist(), majority.tolist(), strict=True)
    ]


def text(algorithm: str, has_history: bool, has_evidence: bool) -> str:
    """The sentence shown with an item; it claims the user's items only where there is evidence among them."""
    if has_evidence:
        return FROM_EVIDENCE.get(algorithm, FROM_HISTORY)
    return FROM_HISTORY if has_history and algorithm != "popularity" else WITHOUT_HISTORY
