"""Which family contributed most to an item, and the sentence that explains it."""

import numpy as np

from serving.explanations import FROM_HISTORY, WITHOUT_HISTORY, main_families, text


def part(*scores: float) -> np.ndarray:
    return np.array([scores], dtype=np.float32)


def test_a_family_is_named_only_where_it_carried_more_than_half() -> None:
    parts = {
        "collaborative": part(6, 5, 1, 0, 3),
        "content-based": part(4, 5, -8, 0, 3),
        "hybrid": part(0, 0, 0.5, 0, 3),
    }
    assert main_families(parts, "hybrid") == [["collaborative", "hybrid", "collaborative", "hybrid", "hybrid"]]


def test_a_single_family_carries_all_it_lists() -> None:
    assert main_families({"collaborative": part(1, 2)}, "collaborative") == [["collaborative"] * 2]


def test_words_claim_the_users_items_only_with_evidence() -> None:
    assert text("collaborative", has_history=True, has_evidence=True) == "Users similar to you also liked this"
    assert text("collaborative", has_history=True, has_evidence=False) == FROM_HISTORY
    assert text("collaborative", has_history=False, has_evidence=False) == WITHOUT_HISTORY
    assert text("a-family-of-theirs", has_history=True, has_evidence=True) == FROM_HISTORY
