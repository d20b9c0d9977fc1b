"""Arranges candidates by a recipe: a pure function.

The order of application is fixed:

1. Left out are hidden items, those that the request or the recipe excludes, those the user had, and those that do not
   match the filter.
2. Each candidate counts for its score times the factors of the boosts that it matches, the expression, and what
   rotation leaves. They are sorted by that; equal ones stay in their source's order. A fallback's candidates come
   behind those of the source, however much they count for.
3. The list is filled from its first position to its last. A pinned item stands at its position. A slot takes the first
   of its source that is not in the list. Every other position takes the next candidate.
4. A candidate is passed over where a cap is full. Pins count for caps from the beginning and are never passed over.

An item that is pinned to a later position is not taken before. Where no candidate is left, later pins and slots move
up.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from api.scenarios.recipe import MAX_POSITION
from api.scenarios.rules import HIDDEN, CompiledRecipe, ItemFacts, RulesInForce, weight_of
from serving.contracts.messages import RankedItem

PINNED = "Chosen for this place"
"""Explanation of an item that stands in the list because of its pin alone."""


@dataclass(frozen=True, slots=True)
class ScenarioCandidates:
    """What there is to arrange."""

    tiers: Sequence[Sequence[RankedItem]]  # a source's candidates, best first; then those of fallbacks
    slots: Mapping[int, Sequence[RankedItem]] = field(default_factory=dict)  # by position
    facts: Mapping[str, ItemFacts] | None = None  # None: no rule looks at items
    excluded: Set[str] = frozenset()  # by the request
    seen: Set[str] = frozenset()  # the user had them, and is not to see them again
    showings: Mapping[str, float] = field(default_factory=dict)  # without a choice, each halved by its half-lives
    filtered: bool = False  # whether the recipe's filter counts, as it does where the request has none of its own


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The list, and why other candidates are not in it."""

    items: list[RankedItem]
    left_out: dict[str, str]  # item id: `hidden`, `seen`, `filtered by ...` or `capped by ...`


def arrange(
    compiled: CompiledRecipe,
    rules: RulesInForce,
    candidates: ScenarioCandidates,
    moment: float,
    count: int,
    offset: int = 0,
    pinned_as: str = "hybrid",
) -> Arrangement:
    """The list of at most `count` items.

    Args:
        compiled, rules: a recipe, and what of it holds at this moment.
        candidates: what there is to arrange.
        moment: seconds since the epoch.
        count: how many items are wanted.
        offset: how many items were shown before on earlier pages: positions count from the first page.
        pinned_as: what `algorithm` says of pinned items that no source has ranked.
    """
    out = _Exclusion(compiled, candidates)
    stream = iter(_stream(rules, candidates, moment, out, rules is compiled.always and compiled.is_steady))
    last = offset + count
    pins: dict[int, str] = {}
    for position, (_, id_) in sorted(rules.pins.items()):
        if position > offset and id_ not in pins.values() and out.of_pin(id_) is None:
            pins[position] = id_
    placed: list[RankedItem] = []
    used = set(pins.values())
    caps = _CapCounts(rules, candidates.facts)
    for position, pinned in pins.items():
        if position <= last:
            caps.count(pinned)
    known = _ranked(candidates, used) if pins else {}
    for position in range(offset + 1, last + 1):
        if position in pins:
            pinned = pins[position]
            placed.append(known.get(pinned) or RankedItem(pinned, 0.0, pinned_as, PINNED, []))
            continue
        slot = candidates.slots.get(position)
        chosen = None if slot is None else _best(slot, candidates.facts, used, caps, out)
        if chosen is None:
            for item in stream:
                if item.item_id not in used:
                    if (full := caps.admit(item.item_id)) is None:
                        chosen = item
                        break
                    out.reasons[item.item_id] = f"capped by {full}"
        if chosen is not None:
            placed.append(chosen)
            used.add(chosen.item_id)
    for item in placed if out.reasons else ():
        out.reasons.pop(item.item_id, None)
    return Arrangement(placed, out.reasons)


def _ranked(candidates: ScenarioCandidates, ids: set[str]) -> dict[str, RankedItem]:
    """The items with these ids, as far as a source has ranked them."""
    found = {}
    for tier in (*candidates.slots.values(), *candidates.tiers):
        for item in tier:
            if item.item_id in ids:
                found[item.item_id] = item
    return found


class _Exclusion:
    """Why an item may not be in the list; `reasons` has those of the candidates that were asked about."""

    def __init__(self, compiled: CompiledRecipe, candidates: ScenarioCandidates) -> None:
        self.reasons: dict[str, str] = {}
        self._items = compiled.excluded_items
        self._candidates = candidates
        self.none_by_id = not (candidates.excluded or compiled.excluded_items or candidates.seen)

    def of(self, id_: str, facts: ItemFacts | None) -> str | None:
        """Why a candidate is left out; None where it is not."""
        if facts is not None and facts.open and self.none_by_id:
            return None
        candidates = self._candidates
        reason = self.of_pin(id_)
        if reason is None and id_ in candidates.seen:
            reason = "seen"
        if reason is None and candidates.filtered and candidates.facts is not None:
            reason = None if (facts or HIDDEN).fits else "filtered by filter"
        if reason is not None:
            self.reasons[id_] = reason
        return reason

    def of_pin(self, id_: str) -> str | None:
        """Why even a pin leaves it out: neither the filter nor what the user had concerns a pin."""
        if id_ in self._candidates.excluded:
            return "filtered by exclude"
        if id_ in self._items:
            return "filtered by exclusions.items"
        if self._candidates.facts is not None:
            facts = self._candidates.facts.get(id_, HIDDEN)
            if not facts.live:
                return "hidden"
            if facts.excluded:
                return "filtered by exclusions.filter"
        return None


class _CapCounts:
    """How many items of the list have each value of the capped fields."""

    def __init__(self, rules: RulesInForce, facts: Mapping[str, ItemFacts] | None) -> None:
        self._most = {index: most for index, _, most in rules.caps}
        self._names = {index: name for index, name, _ in rules.caps}
        self._facts = (facts or {}) if rules.caps else {}
        self._counts: dict[tuple[int, Any], int] = {}

    def count(self, id_: str) -> None:
        """Count an item that is in the list whether or not a cap has room for it."""
        if (facts := self._facts.get(id_)) is not None:
            for value in facts.capped:
                self._counts[value] = self._counts.get(value, 0) + 1

    def admit(self, id_: str) -> str | None:
        """Count an item and return None; where a cap has no room for it, count nothing and return the cap's field."""
        facts = self._facts.get(id_)
        if facts is None or not facts.capped:
            return None
        counts, most = self._counts, self._most
        for value in facts.capped:
            if counts.get(value, 0) >= most.get(value[0], MAX_POSITION):
                return self._names[value[0]]
        for value in facts.capped:
            counts[value] = counts.get(value, 0) + 1
        return None


def _stream(
    rules: RulesInForce, candidates: ScenarioCandidates, moment: float, out: _Exclusion, steady: bool
) -> list[RankedItem]:
    """The candidates in the order of what they count for, tier by tier, each item once.

    steady: whether the weights that lie in the facts are those of these rules.
    """
    facts, showings = candidates.facts or {}, candidates.showings
    # Nearly every request takes this shorter way: without windows and showings, the facts alone decide the order.
    if out.none_by_id and not showings and len(candidates.tiers) == 1 and (candidates.facts is None or steady):
        tier = candidates.tiers[0]
        if (counts := _counts_by_facts(tier, candidates.facts)) is not None:
            return [tier[at] for at in sorted(range(len(tier)), key=counts.__getitem__, reverse=True)]  # stable
    stream: list[RankedItem] = []
    met: set[str] = set()
    for tier in candidates.tiers:
        counted: list[tuple[float, RankedItem]] = []
        for item in tier:
            id_ = item.item_id
            if id_ not in met:
                met.add(id_)
                known = facts.get(id_)
                if out.of(id_, known) is None:
                    if steady and known is not None and not showings:
                        weight = known.weight
                    else:
                        weight = weight_of(rules, known, moment, showings.get(id_, 0.0))
                    counted.append((item.score * weight, item))
        counted.sort(key=_first, reverse=True)  # stable
        stream += [item for _, item in counted]
    return stream


def _counts_by_facts(tier: Sequence[RankedItem], facts: Mapping[str, ItemFacts] | None) -> list[float] | None:
    """What each candidate counts for; None where one of them is left out. A tier has each item once."""
    if facts is None:
        return [item.score for item in tier]
    counts = []
    for item in tier:
        fact = facts.get(item.item_id, HIDDEN)
        if not fact.open:
            return None
        counts.append(item.score * fact.weight)
    return counts


def _best(
    items: Sequence[RankedItem],
    facts: Mapping[str, ItemFacts] | None,
    used: set[str],
    caps: _CapCounts,
    out: _Exclusion,
) -> RankedItem | None:
    """The first item of a slot's source that may stand there. The caps count it."""
    for item in items:
        id_ = item.item_id
        if id_ not in used and out.of(id_, (facts or {}).get(id_)) is None and caps.admit(id_) is None:
            return item
    return None


def _first(pair: tuple[float, RankedItem]) -> float:
    return pair[0]
