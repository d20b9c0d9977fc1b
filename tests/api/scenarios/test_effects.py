"""What each rule moves is told by the list without it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from api.scenarios.arrange import ScenarioCandidates, arrange
from api.scenarios.effects import RuleEffect, effects_of
from api.scenarios.recipe import Recipe
from api.scenarios.rules import CompiledRecipe
from serving.contracts.messages import RankedItem

NOW = datetime(2026, 3, 7, 12, tzinfo=UTC)
BRANDS = {"a": "X", "b": "X", "c": "Y", "d": "Z"}


def effects(count: int = 3, **recipe: Any) -> tuple[list[str], list[RuleEffect]]:
    """The list of the items a, b, c, d, which score 0.8, 0.6, 0.4 and 0.2, and what the rules do to it."""
    compiled = CompiledRecipe.of(Recipe.model_validate(recipe))
    ranked = [RankedItem(id_, score, "hybrid", "", []) for id_, score in zip("abcd", (0.8, 0.6, 0.4, 0.2), strict=True)]
    facts = {id_: compiled.facts({"brand": brand}, is_active=True) for id_, brand in BRANDS.items()}
    candidates = ScenarioCandidates([ranked], facts=facts)
    rules = compiled.at(NOW)
    items = arrange(compiled, rules, candidates, NOW.timestamp(), count).items
    found = asyncio.run(effects_of(compiled, rules, candidates, NOW.timestamp(), count))
    return [item.item_id for item in items], found


def test_a_rule_moves_what_stands_elsewhere_without_it() -> None:
    items, found = effects(
        boosts=[{"filter": {"brand": "Z"}, "factor": 10.0}, {"filter": {"brand": "X"}, "factor": 1.0}],
        pins=[{"position": 3, "item": "c"}],
        caps=[{"field": "brand", "atMost": 1}],
    )
    assert items == ["d", "a", "c"]
    assert [effect for effect in found if effect.rule == "boosts.0"] == [
        RuleEffect("d", "boosts.0", 2, 1),
        RuleEffect("a", "boosts.0", 1, 2),
    ]
    assert [effect for effect in found if effect.rule == "caps.0"] == []  # the pin takes the place that it frees
    assert {effect.rule for effect in found} == {"boosts.0"}


def test_items_that_a_rule_brings_in_and_takes_out_are_told() -> None:
    items, found = effects(count=2, caps=[{"field": "brand", "atMost": 1}])
    assert items == ["a", "c"]
    assert found == [RuleEffect("c", "caps.0", None, 2), RuleEffect("b", "caps.0", 2, None)]
    _, found = effects(count=2, pins=[{"position": 1, "item": "d"}])
    assert found == [
        RuleEffect("d", "pins.0", None, 1),
        RuleEffect("a", "pins.0", 1, 2),
        RuleEffect("b", "pins.0", 2, None),
    ]


def test_a_rule_that_does_not_hold_moves_nothing() -> None:
    closed = [{"to": "2026-01-01T00:00:00Z"}]
    assert effects(boosts=[{"filter": {"brand": "Z"}, "factor": 10.0, "windows": closed}])[1] == []
