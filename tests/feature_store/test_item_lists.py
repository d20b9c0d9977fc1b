"""Lists that no model makes, counted by hand over a few events."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store import columns as c
from feature_store import item_lists
from feature_store.item_lists import rate_ratio_lower_bounds
from feature_store.lake_events import LakeEvents, open_lake_events
from feature_store.list_sources import SegmentRule
from feature_store.segments import measure_segment
from tests.feature_store.lakes import interaction, write_lake

MINUTES = 24 * 60
ITEMS = dict.fromkeys(("mug", "salt", "soap", "tea"), "{}")
SOAP = 2


class Diary:
    """What users did, day by day."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on(self, day: int, users: range | str, *items: str, kind: str = "purchase") -> "Diary":
        names = [users] if isinstance(users, str) else [f"u{number}" for number in users]
        for user in names:
            for item in items:
                number = len(self.rows)
                self.rows.append(interaction(number, user, item, day * MINUTES, interaction_type=kind))
        return self

    @contextmanager
    def read(self, root: Path) -> Iterator[LakeEvents]:
        with open_lake_events(write_lake(root, self.rows, ITEMS)) as events:
            yield events


def listed(table: Any, of_item: str = "") -> list[tuple[str, float]]:
    rows = [row for row in table.to_pylist() if row[c.OF_ITEM] == of_item]
    assert [row[c.RANK] for row in rows] == list(range(1, len(rows) + 1))
    return [(row[c.ITEM_ID], row[c.SCORE]) for row in rows]


def rule(kind: Any, types: tuple[str, ...], at_least: int = 1, days: int = 30) -> SegmentRule:
    return SegmentRule("id", "name", kind, None, types, at_least, days, "")


def test_the_bound_is_the_one_of_the_exact_test() -> None:
    """The example of R's manual: `poisson.test(c(11, 6+8+7), c(800, 1083+1050+878))` has 0.8584264 to 4.2772659."""
    found = rate_ratio_lower_bounds(np.array([11, 0]), np.array([21, 5]), 800, 3011)
    assert found == pytest.approx([0.8584264, 0.0], abs=1e-6)
    assert rate_ratio_lower_bounds(np.array([3]), np.array([0]), 3, 0).tolist() == [0.0]


def test_trending_is_the_rise_against_an_items_own_past_and_not_its_count(tmp_path: Path) -> None:
    """The week up to day 40, and the four weeks before it. Salt has most users in both; the mug is new.

    Pairs of a user and an item: 20 + 7 + 1 in the week, 40 in the past. Of seven users in the week and none before, the
    exact bound on the share is 0.025 ** (1 / 7).
    """
    diary = Diary().on(20, range(40), "salt").on(40, range(20), "salt").on(40, range(6), "mug").on(40, "x", "soap")
    diary.on(40, "x", "mug").on(39, range(6), "mug")  # who comes back counts once
    diary.on(1, range(20), "mug")  # before the windows
    with diary.read(tmp_path) as events:
        found = listed(item_lists.trending(events))
    p = 0.025 ** (1 / 7)
    assert found == [("mug", pytest.approx(1 - 1 / (p / (1 - p) * 40 / 28), abs=1e-6))]


def test_a_week_in_which_everything_is_busier_lifts_nothing(tmp_path: Path) -> None:
    diary = Diary().on(20, range(10), "salt", "tea").on(40, range(300), "salt", "tea")
    with diary.read(tmp_path) as events:
        assert listed(item_lists.trending(events)) == []


def test_bought_together_is_the_shrunk_cosine_over_baskets(tmp_path: Path) -> None:
    """Tea and mug in four baskets of three users; tea in six, mug in five. Soap and salt by two users only."""
    diary = Diary().on(1, range(3), "tea", "mug").on(2, "u0", "tea", "mug").on(3, range(2), "tea").on(4, "u9", "mug")
    diary.on(5, range(2), "soap", "salt").on(6, range(9), "soap", "salt", kind="view")
    with diary.read(tmp_path) as events:
        assert item_lists.basket_type(events) == "purchase"
        found = item_lists.bought_together(events, "purchase")
    score = pytest.approx(4 / (sqrt(6 * 5) + 10), abs=1e-6)
    assert listed(found, "tea") == [("mug", score)]
    assert listed(found, "mug") == [("tea", score)]
    assert found.num_rows == 2


def test_without_purchases_likes_make_the_baskets(tmp_path: Path) -> None:
    with Diary().on(1, range(3), "tea", "mug", kind="like").read(tmp_path) as events:
        kind = item_lists.basket_type(events)
        assert (kind, item_lists.bought_together(events, kind).num_rows) == ("like", 2)


def test_who_bought_twice_in_thirty_days_and_what_they_choose(tmp_path: Path) -> None:
    diary = Diary().on(40, range(4), "tea").on(12, range(3), "mug").on(9, "u3", "mug").on(30, "u7", "soap", kind="view")
    diary.on(40, "u7", "soap")
    with diary.read(tmp_path) as events:
        found = measure_segment(events, rule("users", ("purchase",), at_least=2), None)
        seen_soap = measure_segment(events, rule("users", ("purchase", "view"), at_least=2), [SOAP])
    assert found.size == 3  # u3 bought the mug 31 days before, u7 only looked
    assert sorted(found.users[c.USER_ID].to_pylist()) == ["u0", "u1", "u2"]
    mug = 3 / (1 + 28 / 30)
    expected = [("tea", pytest.approx(3 / 4)), ("mug", pytest.approx(mug / (1 + mug), abs=1e-6))]
    assert listed(found.listed) == expected
    assert seen_soap.users[c.USER_ID].to_pylist() == ["u7"]
    assert listed(seen_soap.listed) == []  # a list of one person's choices would show what that person did


def test_items_by_what_is_done_with_them_and_by_a_filter(tmp_path: Path) -> None:
    diary = Diary().on(40, range(4), "tea").on(40, "u0", "mug").on(1, range(5), "soap")
    with diary.read(tmp_path) as events:
        bought = measure_segment(events, rule("items", ("purchase",), at_least=2), None)
        matched = measure_segment(events, rule("items", ()), [0, 1, 2])
    assert (bought.size, listed(bought.listed)) == (1, [("tea", pytest.approx(4 / 5))])
    assert (matched.size, matched.listed.num_rows) == (3, 0)


def test_a_lake_without_interactions_has_no_lists(tmp_path: Path) -> None:
    with Diary().read(tmp_path) as events:
        assert item_lists.trending(events).num_rows == 0
        assert item_lists.bought_together(events, item_lists.basket_type(events)).num_rows == 0
        assert measure_segment(events, rule("users", ("view",)), None).size == 0
