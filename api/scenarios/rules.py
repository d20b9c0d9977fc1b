"""A recipe made ready for requests: its filters as trees, its expression as a sum, and what holds at a moment."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Self

from api.scenarios.expression import LinearExpression, field_path, parse_expression, value_at
from api.scenarios.matching import matches, paths_of
from api.scenarios.recipe import MAX_FACTOR, Cap, Pin, Recipe, Rotation
from api.scenarios.windows import holds_at
from serving.contracts.filters import And, Filter, Not, Path, parse_filter

MAX_CAPPED_VALUES = 20
"""Elements of an array that count for a cap."""
_LONG_TEXT = 64
"""A longer value of a cap is kept as its digest, so that facts of an item stay small."""


class ItemFacts(NamedTuple):
    """What the rules of one recipe say of an item, whatever the moment and the user."""

    live: bool  # there, and active
    fits: bool = False  # the recipe's filter
    excluded: bool = False  # matches the filter of the exclusions
    boosts: tuple[int, ...] = ()  # those that it matches, by their index
    readings: tuple[float | None, ...] = ()  # of the expression
    capped: tuple[tuple[int, Any], ...] = ()  # the index of a cap, and a value that counts for it
    open: bool = False  # no rule on items leaves it out
    weight: float = 1.0  # where it is the same at every moment: see `CompiledRecipe.is_steady`


HIDDEN = ItemFacts(live=False)


@dataclass(frozen=True, slots=True)
class RulesInForce:
    """The rules of a recipe that hold at one moment."""

    boosts: tuple[float, ...]  # the factor of each boost, 1 where it does not hold
    expression: LinearExpression | None
    caps: tuple[tuple[int, str, int], ...]  # index, field and most
    pins: Mapping[int, tuple[int, str]]  # by position: index and item
    slots: Mapping[int, tuple[int, Pin]]  # by position: index, and the pin with its source
    diversity: float
    rotation: Rotation | None


@dataclass(frozen=True, slots=True)
class CompiledRecipe:
    """A recipe with everything parsed."""

    recipe: Recipe
    filter: Filter | None
    exclusion: Filter | None
    boosts: tuple[Filter, ...]
    expression: LinearExpression | None
    caps: tuple[Path, ...]
    excluded_items: frozenset[str]
    keys: tuple[str, ...]  # of metadata that the rules read, of the outermost object
    always: RulesInForce | None  # what holds, where it is the same at every moment
    is_steady: bool  # whether what an item's score is multiplied by is so too

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        boosts = tuple(parse_filter(boost.filter) for boost in recipe.boosts)
        expression = None if recipe.expression is None else parse_expression(recipe.expression)
        caps = tuple(field_path(cap.field, "caps") for cap in recipe.caps)
        chosen = None if recipe.filter is None else parse_filter(recipe.filter)
        exclusion = None if recipe.exclusions.filter is None else parse_filter(recipe.exclusions.filter)
        paths = {*caps, *(field.path for field in (expression.fields if expression else ()))}
        paths = paths.union(*(paths_of(tree) for tree in (chosen, exclusion, *boosts) if tree is not None))
        rules: tuple[Any, ...] = (recipe, *recipe.boosts, *recipe.pins, *recipe.caps)
        timed = any(rule.windows for rule in rules)
        moves = timed or any(field.kind == "days" for field in (expression.fields if expression else ()))
        return cls(
            recipe,
            chosen,
            exclusion,
            boosts,
            expression,
            caps,
            frozenset(recipe.exclusions.items),
            tuple(sorted({path[0] for path in paths})),
            None if timed else _in_force(recipe, expression, None),
            not moves,
        )

    @property
    def reads_facts(self) -> bool:
        """Whether any rule beside those that sources apply looks at items."""
        recipe = self.recipe
        return bool(recipe.boosts or recipe.caps or recipe.pins or recipe.expression)

    def at(self, moment: datetime) -> RulesInForce:
        """What holds at a moment, which has a time zone."""
        return self.always or _in_force(self.recipe, self.expression, moment)

    def facts(self, metadata: Mapping[str, Any], *, is_active: bool) -> ItemFacts:
        """What the rules say of an item with this metadata. Of it, `keys` suffice."""
        fits = self.filter is None or matches(self.filter, metadata)
        excluded = self.exclusion is not None and matches(self.exclusion, metadata)
        facts = ItemFacts(
            is_active,
            fits,
            excluded,
            tuple(index for index, tree in enumerate(self.boosts) if matches(tree, metadata)),
            () if self.expression is None else self.expression.readings_of(metadata),
            tuple((at, value) for at, path in enumerate(self.caps) for value in _values(value_at(metadata, path))),
            is_active and fits and not excluded,
        )
        if self.always is None or not self.is_steady:
            return facts
        return facts._replace(weight=weight_of(self.always, facts, 0.0, 0.0))

    def pushed_filter(self, own: Filter | None, slot: Pin | None = None) -> Filter | None:
        """The filter that a source gets: the request's own one or the recipe's, and none that is excluded.

        slot: the one whose source it is.
        """
        parts = [own if own is not None else self.filter]
        if slot is not None and slot.filter is not None:
            parts.append(parse_filter(slot.filter))
        if self.exclusion is not None:
            parts.append(Not(self.exclusion))
        trees = tuple(part for part in parts if part is not None)
        return trees[0] if len(trees) == 1 else And(trees) if trees else None


def weight_of(rules: RulesInForce, facts: ItemFacts | None, moment: float, showings: float) -> float:
    """What an item's score is multiplied by. moment: in seconds since the epoch. showings: without a choice."""
    weight = 1.0
    if facts is not None:
        for index in facts.boosts:
            weight *= rules.boosts[index]
        if rules.expression is not None:
            weight *= min(max(rules.expression.value(facts.readings, moment), 0.0), MAX_FACTOR)
    if showings and rules.rotation is not None:
        weight *= (1.0 - rules.rotation.strength) ** showings
    return weight


def _in_force(recipe: Recipe, expression: LinearExpression | None, moment: datetime | None) -> RulesInForce:
    """What holds at a moment; None: in a recipe without windows."""

    def holds(rule: Any) -> bool:
        return moment is None or holds_at(rule.windows, moment)

    if not holds(recipe):
        return RulesInForce((1.0,) * len(recipe.boosts), None, (), {}, {}, 0.0, None)
    pins: dict[int, tuple[int, str]] = {}
    slots: dict[int, tuple[int, Pin]] = {}
    for index, pin in enumerate(recipe.pins):
        if pin.position not in pins and pin.position not in slots and holds(pin):
            if pin.item is None:
                slots[pin.position] = (index, pin)
            else:
                pins[pin.position] = (index, pin.item)
    return RulesInForce(
        tuple(boost.factor if holds(boost) else 1.0 for boost in recipe.boosts),
        expression,
        tuple(_cap(index, cap) for index, cap in enumerate(recipe.caps) if holds(cap)),
        pins,
        slots,
        recipe.diversity,
        recipe.rotation,
    )


def _cap(index: int, cap: Cap) -> tuple[int, str, int]:
    return index, cap.field, cap.at_most


def _values(value: Any) -> tuple[Any, ...]:
    """The values of a field that count for a cap. Equal ones are equal in filters too: true is not 1, and 1 is 1.0."""
    candidates = value[:MAX_CAPPED_VALUES] if isinstance(value, list) else (value,)
    return tuple(dict.fromkeys(_key(each) for each in candidates if isinstance(each, str | int | float)))


def _key(value: str | float) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false", bool
    if isinstance(value, str) and len(value) > _LONG_TEXT:
        return hashlib.blake2b(value.encode(), digest_size=16).digest()
    return value
