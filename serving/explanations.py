"""Why an item is in a list: the family that contributed most to its score, and a sentence for the user."""

from collections.abc import Mapping

import numpy as np

from training.models.contract import FloatMatrix

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


def main_families(component_scores: Mapping[str, FloatMatrix], family: str) -> list[list[str]]:
    """The family that contributed more than half of each listed item's score; `family` itself where none did.

    component_scores: float32 [batch, k] each, as `Scoring.component_scores` gives them; a negative score contributes
    nothing. Returns [batch][k] names.
    """
    names = list(component_scores)
    # [families, batch, k]
    shares = np.maximum(np.stack(list(component_scores.values())), 0)
    largest = shares.argmax(axis=0)
    majority = shares.max(axis=0) > shares.sum(axis=0) / 2
    chosen = np.where(majority, largest, len(names)).tolist()
    names.append(family)
    return [[names[index] for index in row] for row in chosen]


def texts(families: list[list[str]], has_history: list[bool], has_evidence: list[list[bool]]) -> list[list[str]]:
    """`text` of every listed item. families, has_evidence: [batch][k]; has_history: [batch]."""
    return [
        [text(family, history, evidence) for family, evidence in zip(row_families, row_evidence, strict=True)]
        for row_families, history, row_evidence in zip(families, has_history, has_evidence, strict=True)
    ]


def text(algorithm: str, has_history: bool, has_evidence: bool) -> str:
    """The sentence shown with an item. It refers to items of the user only where some of them are evidence."""
    if has_evidence:
        return FROM_EVIDENCE.get(algorithm, FROM_HISTORY)
    return FROM_HISTORY if has_history and algorithm != "popularity" else WITHOUT_HISTORY
