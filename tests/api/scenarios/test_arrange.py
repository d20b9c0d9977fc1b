"""The order of a list by its rules, and why other candidates are not in it."""

from datetime import UTC, datetime
from typing import Any

from api.scenarios.arrange import Arrangement, ScenarioCandidates, arrange
from api.scenarios.recipe import Recipe
from api.scenarios.rules import CompiledRecipe
from serving.contracts.messages import RankedItem

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
SHOES: dict[str, dict[str, Any]] = {
    "a": {"brand": "x", "price": 10},
    "b": {"brand": "x", "price": 20},
    "c": {"brand": "y", "price": 30},
    "d": {"brand": ["x", "z"], "price": 40},
    "e": {"price": 50},
}
SCORES = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5}


def tier(*ids: str, source: str = "hybrid") -> list[RankedItem]:
    return [RankedItem(id_, SCORES[id_], source, "", []) for id_ in ids]


def arranged(recipe: dict[str, Any], count: int = 5, offset: int = 0, **more: Any) -> Arrangement:
    compiled = CompiledRecipe.of(Recipe.model_validate(recipe))
    hidden = more.pop("hidden", ())
    facts = {id_: compiled.facts(metadata, is_active=id_ not in hidden) for id_, metadata in SHOES.items()}
    candidates = ScenarioCandidates(more.pop("tiers", [tier(*SHOES)]), facts=facts, filtered=True, **more)
    return arrange(compiled, compiled.at(NOW), candidates, NOW.timestamp(), count, offset)


def order(*arguments: Any, **more: Any) -> str:
    return "".join(item.item_id for item in arranged(*arguments, **more).items)


def test_boosts_and_the_expression_change_the_order_and_not_the_scores() -> None:
    boosted = arranged({"boosts": [{"filter": {"brand": "y"}, "factor": 2}, {"filter": {"brand": "x"}, "factor": 0}]})
    assert [item.item_id for item in boosted.items] == ["c", "e", "a", "b", "d"]
    assert [item.score for item in boosted.items] == [0.7, 0.5, 0.9, 0.8, 0.6]
    assert order({"expression": {"$multiply": [0.1, {"$number": "price"}]}}) == "edcba"
    assert order({"expression": {"$subtract": [35, {"$number": "price"}]}}) == "abcde"  # never below 0


def test_a_pin_stands_at_its_place_and_a_slot_takes_the_first_that_is_not_in_the_list() -> None:
    pins = [{"position": 2, "item": "e"}, {"position": 4, "item": "a"}, {"position": 1, "source": "popular"}]
    assert order({"pins": pins}, slots={1: tier("a", "e", "d", "c")}) == "debac"
    assert order({"pins": pins[:2]}, hidden={"e"}) == "bcda"
    assert order({"pins": [{"position": 5, "item": "a"}]}, count=2) == "bc"
    assert order({"pins": [{"position": 5, "item": "a"}]}, tiers=[tier("b")]) == "ba"
    assert order({"pins": [{"position": 3, "item": "e"}, {"position": 1, "item": "c"}]}, count=2, offset=2) == "ea"


def test_caps_count_every_value_and_pins_from_the_beginning() -> None:
    caps = {"caps": [{"field": "brand", "atMost": 1}]}
    assert order(caps) == "ace"
    assert order({**caps, "pins": [{"position": 3, "item": "d"}]}) == "ced"
    assert order({**caps, "pins": [{"position": 1, "item": "a"}, {"position": 2, "item": "b"}]}) == "abce"
    assert order({"caps": [{"field": "brand", "atMost": 2}]}) == "abce"


def test_rotation_sinks_what_was_shown_and_a_fallback_comes_behind_the_source() -> None:
    assert order({"rotation": {"halfLifeHours": 1}}, showings={"a": 1.0, "b": 0.1}) == "bcdea"
    assert order({"boosts": [{"filter": {"brand": "x"}, "factor": 9}]}, tiers=[tier("c"), tier("a", "c")]) == "ca"


def test_it_says_why_an_item_is_out() -> None:
    recipe = {
        "filter": {"price": {"$lt": 45}},
        "exclusions": {"items": ["d"], "filter": {"brand": "y"}},
        "caps": [{"field": "brand", "atMost": 1}],
    }
    assert arranged(recipe).left_out == {
        "b": "capped by brand",
        "c": "filtered by exclusions.filter",
        "d": "filtered by exclusions.items",
        "e": "filtered by filter",
    }
    out = arranged({"pins": [{"position": 1, "item": "c"}]}, seen={"a", "c"}, excluded={"b"}, hidden={"e"})
    assert [item.item_id for item in out.items] == ["c", "d"]  # a pin is shown to those who had the item
    assert out.left_out == {"a": "seen", "b": "filtered by exclude", "e": "hidden"}
