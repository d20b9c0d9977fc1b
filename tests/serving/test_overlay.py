"""The catalogue with changes since a release: they count in the next answer, and nothing else changes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts.filters import parse_filter
from serving.contracts.messages import CatalogueDelta, ItemChange
from serving.overlay import Catalogue
from tests.fixtures.releases import CATALOGUE_VERSION, delta, fitted, item_id, small_dataset

pytestmark = pytest.mark.fit


@pytest.fixture(scope="module")
def base() -> Catalogue:
    items = small_dataset().items
    models = {family: fitted(family) for family in ("collaborative", "content-based")}
    return Catalogue.of_release(CATALOGUE_VERSION, list(items.ids), items.metadata, items.active, models)


def test_an_added_item_gets_the_next_position_in_every_model(base: Catalogue) -> None:
    laid = base.overlaid(delta(11, ("new-1", {"genres": ["horror"]}, True), ("new-2", {"genres": []}, True)))
    assert laid.ids[-2:] == ["new-1", "new-2"]
    assert [laid.position_of["new-1"], laid.position_of["new-2"]] == [60, 61]
    assert {model.n_items for model in laid.models.values()} == {62}
    assert laid.visible[-2:].all()


def test_the_release_itself_stays_as_it_was(base: Catalogue) -> None:
    base.overlaid(delta(11, ("new", {}, True), (item_id("comedy", 1), {"genres": ["war"]}, False)))
    assert len(base.ids) == 60
    assert "new" not in base.position_of
    assert base.visible.all()
    assert base.metadata[base.position_of[item_id("comedy", 1)]]["genres"] == ["comedy", "film"]


def test_hidden_and_deleted_items_are_not_visible_and_come_back(base: Catalogue) -> None:
    first, second = item_id("comedy", 1), item_id("comedy", 2)
    metadata = base.metadata[base.position_of[first]]
    hidden = base.overlaid(delta(11, (first, metadata, False), (second, None, False)))
    assert not hidden.visible[[hidden.position_of[first], hidden.position_of[second]]].any()
    shown = hidden.overlaid(delta(12, (first, metadata, True), (second, {"genres": ["war"]}, True), since=11))
    assert shown.visible.all()


def test_hiding_an_item_rebuilds_no_model(base: Catalogue) -> None:
    item = item_id("comedy", 1)
    hidden = base.overlaid(delta(11, (item, base.metadata[base.position_of[item]], False)))
    assert hidden.models is base.models
    assert hidden.columns is base.columns


def test_an_item_that_came_and_went_between_two_versions_is_nowhere(base: Catalogue) -> None:
    laid = base.overlaid(delta(12, ("fleeting", None, False)))
    assert laid.ids == base.ids
    assert laid.version == 12


def test_edited_metadata_counts_in_filters_and_in_content(base: Catalogue) -> None:
    item = item_id("western", 3)
    position = base.position_of[item]
    laid = base.overlaid(delta(11, (item, {"genres": ["horror"], "title": "horror horror3", "year": 1999}, True)))
    mask = laid.columns.mask(parse_filter({"genres": "horror", "year": 1999}))
    assert set(np.flatnonzero(mask)) == {laid.position_of[item_id("horror", 19)], position}
    before, after = (catalogue.models["content-based"].item_vectors() for catalogue in (base, laid))
    horror = base.position_of[item_id("horror", 3)]
    assert after[position] @ after[horror] > before[position] @ before[horror]


def test_a_delta_that_is_not_newer_changes_nothing(base: Catalogue) -> None:
    assert base.overlaid(delta(CATALOGUE_VERSION, ("new", {}, True), since=0)) is base


def test_a_delta_that_starts_too_late_is_refused(base: Catalogue) -> None:
    with pytest.raises(ValueError, match="starts at version 12"):
        base.overlaid(delta(13, since=12))


def test_models_of_another_catalogue_are_refused() -> None:
    with pytest.raises(ValueError, match="scores 60 items"):
        Catalogue.of_release(1, ["a"], [{}], np.ones(1, bool), {"collaborative": fitted("collaborative")})


CHANGES = st.tuples(
    st.sampled_from([item_id("comedy", 1), item_id("horror", 2), "new-1", "new-2", "new-3"]),
    st.one_of(st.none(), st.sampled_from([{"genres": ["horror"]}, {"genres": ["war"], "year": 3}])),
    st.booleans(),
)


@given(st.lists(CHANGES, min_size=1, max_size=8), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_one_large_delta_equals_several_small_ones(
    base: Catalogue, history: list[tuple[str, dict[str, Any] | None, bool]], cut: int
) -> None:
    def states(changes: list[tuple[int, tuple[str, dict[str, Any] | None, bool]]]) -> list[ItemChange]:
        newest = {item: (version, metadata, active) for version, (item, metadata, active) in changes}
        return [ItemChange(item, version, active, data) for item, (version, data, active) in newest.items()]

    versioned = list(enumerate(history, start=CATALOGUE_VERSION + 1))
    last = versioned[-1][0]
    middle = min(CATALOGUE_VERSION + cut, last)
    at_once = base.overlaid(CatalogueDelta(CATALOGUE_VERSION, last, states(versioned)))
    first = base.overlaid(CatalogueDelta(CATALOGUE_VERSION, middle, states(versioned[:cut])))
    in_steps = first.overlaid(CatalogueDelta(middle, last, states(versioned[cut:])))
    visible = [
        {item for item, shown in zip(each.ids, each.visible, strict=True) if shown} for each in (at_once, in_steps)
    ]
    assert visible[0] == visible[1]
    condition = parse_filter({"$or": [{"genres": "war"}, {"year": {"$lt": 1985}}]})
    found = [
        {each.ids[position] for position in np.flatnonzero(each.columns.mask(condition) & each.visible)}
        for each in (at_once, in_steps)
    ]
    assert found[0] == found[1]
