"""Lists from scores: which items, in which order, and the effect of diversity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.ranking import Diversity, cosine_scores, diversify, mask_scores, rank
from training.models.lists import NO_ITEM

SCORES = np.array([[0.1, 0.9, 0.5, 0.9], [0.4, 0.3, 0.2, 0.1]], dtype=np.float32)


def test_only_admitted_items_are_listed_and_each_row_keeps_its_own_count() -> None:
    allowed = [np.array([True, True, True, False]), np.array([False, True, True, True])]
    ranked = rank(mask_scores(SCORES.copy(), allowed, [[1], []]), np.array([3, 1]))
    assert ranked.items.tolist() == [[2, 0, NO_ITEM], [1, NO_ITEM, NO_ITEM]]
    assert ranked.scores[0, :2].tolist() == [0.5, pytest.approx(0.1)]


def test_equal_scores_are_listed_by_position() -> None:
    assert rank(SCORES, np.array([2, 2])).items.tolist() == [[1, 3], [0, 1]]


def test_a_row_without_a_mask_may_list_everything_but_what_it_excludes() -> None:
    ranked = rank(mask_scores(SCORES.copy(), [None, None], [[1], []]), np.array([4, 4]))
    assert ranked.items.tolist() == [[3, 2, 0, NO_ITEM], [0, 1, 2, 3]]


@given(
    arrays.arrays(np.float32, (3, 12), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
    arrays.arrays(bool, (3, 12)),
    st.lists(st.integers(1, 15), min_size=3, max_size=3),
)
@settings(deadline=None)
def test_a_list_is_the_sorted_admitted_items(scores: np.ndarray, allowed: np.ndarray, counts: list[int]) -> None:
    ranked = rank(mask_scores(scores.copy(), list(allowed), [[0], [], [5, 11]]), np.array(counts))
    for row, excluded in enumerate(({0}, set(), {5, 11})):
        may = [item for item in range(12) if allowed[row, item] and item not in excluded]
        expected = sorted(may, key=lambda item: (-scores[row, item], item))[: counts[row]]
        assert [item for item in ranked.items[row].tolist() if item != NO_ITEM] == expected


VECTORS = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 0]], dtype=np.float32)


@pytest.mark.parametrize(("diversity", "chosen"), [(0.0, [0, 1, 2]), (0.5, [0, 3, 4]), (1.0, [0, 3, 4])])
def test_diversity_prefers_what_is_unlike_the_chosen(diversity: float, chosen: list[int]) -> None:
    relevance = np.array([0.9, 0.85, 0.8, 0.7, 0.6])
    assert diversify(relevance, VECTORS, 3, diversity).tolist() == chosen


def test_a_diverse_set_is_sorted_by_score_and_other_rows_keep_theirs() -> None:
    scores = np.array([[0.6, 0.9, 0.8, 0.7, 0.5]] * 2, dtype=np.float32)
    diversity = Diversity(np.array([0.9, 0.0]), lambda raw: raw.astype(np.float64), lambda: VECTORS)
    ranked = rank(scores, np.array([3, 3]), diversity)
    assert ranked.items.tolist() == [[1, 3, 4], [1, 2, 3]]
    assert (np.diff(ranked.scores) <= 0).all()


@given(st.floats(0, 1), st.integers(1, 30), st.integers(0, 30))
@settings(deadline=None)
def test_a_diverse_list_is_as_long_as_one_by_score(weight: float, count: int, admitted: int) -> None:
    random = np.random.default_rng(admitted)
    scores = random.normal(size=(1, 30)).astype(np.float32)
    mask = np.arange(30) < admitted
    vectors = random.normal(size=(30, 4)).astype(np.float32)
    diversity = Diversity(np.array([weight]), lambda raw: raw.astype(np.float64), lambda: vectors)
    ranked = rank(mask_scores(scores, [mask], [[]]), np.array([count]), diversity)
    listed = [item for item in ranked.items[0].tolist() if item != NO_ITEM]
    assert len(listed) == len(set(listed)) == min(count, admitted)
    assert set(listed) <= set(range(admitted))


def test_similar_lists_neither_the_item_itself_nor_what_is_not_alike() -> None:
    scores = cosine_scores(VECTORS, np.array([0, 4], np.int32))
    assert rank(scores, np.array([5, 5])).items.tolist() == [[1, 2, NO_ITEM, NO_ITEM, NO_ITEM], [NO_ITEM] * 5]
