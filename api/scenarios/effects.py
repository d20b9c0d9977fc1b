"""What each rule of a recipe does to a list: the list with the rule is compared with the list without it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from api.http.slices import turn
from api.scenarios.arrange import ScenarioCandidates, arrange
from api.scenarios.rules import CompiledRecipe, RulesInForce


@dataclass(frozen=True, slots=True)
class RuleEffect:
    """One item that a rule moves. Positions count from 1; None: the item is not in the list."""

    item_id: str
    rule: str  # its place in the recipe, such as `boosts.0`
    without: int | None  # the position without the rule
    with_it: int | None


async def effects_of(
    compiled: CompiledRecipe, rules: RulesInForce, candidates: ScenarioCandidates, moment: float, count: int
) -> list[RuleEffect]:
    """Every item that a rule moves into, within or out of the first `count`, by rule and then by position.

    Arguments are those of `arrange`, which runs once for each rule; other requests run between.
    """

    def positions(held: RulesInForce) -> dict[str, int]:
        items = arrange(compiled, held, candidates, moment, count).items
        return {item.item_id: place for place, item in enumerate(items, start=1)}

    arranged = positions(rules)
    found = []
    for rule, others in _without_each(rules):
        await turn()
        bare = positions(others)
        for id_ in arranged | bare:
            if arranged.get(id_) != bare.get(id_):
                found.append(RuleEffect(id_, rule, bare.get(id_), arranged.get(id_)))
    return found


def _without_each(rules: RulesInForce) -> Iterator[tuple[str, RulesInForce]]:
    """Each rule that holds, and the rules without it."""
    for index, factor in enumerate(rules.boosts):
        if factor != 1.0:
            yield f"boosts.{index}", replace(rules, boosts=(*rules.boosts[:index], 1.0, *rules.boosts[index + 1 :]))
    if rules.expression is not None:
        yield "expression", replace(rules, expression=None)
    for position, (index, _) in rules.pins.items():
        yield f"pins.{index}", replace(rules, pins={at: pin for at, pin in rules.pins.items() if at != position})
    for position, (index, _) in rules.slots.items():
        yield f"pins.{index}", replace(rules, slots={at: slot for at, slot in rules.slots.items() if at != position})
    for cap in rules.caps:
        yield f"caps.{cap[0]}", replace(rules, caps=tuple(each for each in rules.caps if each is not cap))
    if rules.rotation is not None:
        yield "rotation", replace(rules, rotation=None)
