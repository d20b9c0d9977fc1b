"""Makes the list of a scenario: asks its sources, arranges what they give, and asks for more where that is too little.

What the recipe does with candidates is in `api/scenarios/arrange.py`. The sources get the filter, and what is left out
by id. A list is made of the best `pool_size(count)` candidates of the source, which is also how many a slot chooses
from. Where caps leave too few of them, the source is asked for more, and then the fallbacks of the recipe, in order.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from api.database.scope import TenantScope
from api.http.problems import NotFound
from api.lists.source import RECENTLY_VIEWED, ListSource
from api.recommendations.fallback import ALGORITHM as POPULARITY
from api.scenarios.arrange import ScenarioCandidates, arrange
from api.scenarios.facts import ScenarioFacts
from api.scenarios.live import LiveScenario
from api.scenarios.recipe import LIST_SOURCES, SEGMENT_PREFIX
from api.scenarios.rules import ItemFacts
from feature_store.columns import BOUGHT_TOGETHER
from serving.contracts.filters import Filter
from serving.contracts.messages import MAX_COUNT, Query, RankedItem, ServingUnavailable

MIN_POOL = 30
POOL_FACTOR = 3
MAX_ROUNDS = 5
"""How often one source is asked for one list."""
LISTED = "From the list {source}"
"""Explanation of an item that comes from a list."""


def pool_size(count: int) -> int:
    """How many candidates a source is asked for at once, for a list of this length."""
    return min(MAX_COUNT, max(MIN_POOL, POOL_FACTOR * count))


@dataclass(frozen=True, slots=True)
class ScenarioRequest:
    """What a request wants of a scenario, its own fields and the recipe's already weighed against each other."""

    scope: TenantScope
    scenario: LiveScenario
    catalogue_version: int
    count: int
    offset: int  # items of earlier pages
    source: str
    exclude: list[str]  # by the request, and the session's items where these count as seen
    seen: Callable[[], list[str]]  # ids of items that the user had, which are not shown again
    own_filter: Filter | None
    own_seen: bool  # whether the request itself says what of the user's items is left out: then pins obey too
    query: Callable[[str, int, list[str], Filter | None, float], Query | None]
    """The query for so many items of a model's source, without these ids, by a filter and the recipe's diversity; None
    where it has nothing to go by."""
    item_id: str | None  # whose similar items, or items bought together, are meant; None: of a user without history
    user_id: str | None  # None: the request is for an item
    showings: Callable[[float], Awaitable[Mapping[str, float]]] | None  # by a half-life in hours; None: of no user

    def seen_of(self, source: str) -> list[str]:
        """The seen items that lists of this source leave out.

        `recently-viewed` consists of seen items. So it leaves them out only where the request or the recipe asks for
        it, and not because of the tenant's setting.
        """
        asked = self.own_seen or self.scenario.recipe.exclusions.seen is not None
        return self.seen() if source != RECENTLY_VIEWED or asked else []


@dataclass(slots=True)
class ScenarioList:
    """The list of a scenario, and who answered."""

    items: list[RankedItem] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    source: str = ""  # of the first candidates
    release: str | None = None  # None where no model answered
    unavailable: ServingUnavailable | None = None  # why a model did not
    slots_ignored: bool = False  # whether it was one that slots need
    candidates: ScenarioCandidates | None = None  # what the list was arranged from


@dataclass(frozen=True)
class ScenarioLists:
    """Makes lists. One per process."""

    facts: ScenarioFacts
    lists: ListSource
    ask: Callable[[TenantScope, int, Query], Awaitable[tuple[list[RankedItem], str]]]
    """The model server's answer to a query at a catalogue version, and its release. Raises ServingUnavailable."""
    popular: Callable[[TenantScope, int, list[str], Filter | None], Awaitable[list[RankedItem]]]
    """What answers where no model does."""

    async def make(self, request: ScenarioRequest, moment: datetime | None = None) -> ScenarioList:
        """The list. moment: with a time zone; now, where it is not given."""
        return await _Making(self, request, moment or datetime.now(UTC)).run()

    async def popular_only(self, request: ScenarioRequest) -> ScenarioList:
        """Popular items that the filter and the exclusions leave, by no other rule: what a recipe is compared with."""
        compiled = self.facts.compiled(request.scope, request.scenario, request.catalogue_version)
        exclude = [*request.exclude, *compiled.recipe.exclusions.items, *request.seen()]
        items = await self.popular(request.scope, request.count, exclude, compiled.pushed_filter(request.own_filter))
        return ScenarioList(items, source=POPULARITY)


class _Making:
    """One list that is being made."""

    def __init__(self, using: ScenarioLists, request: ScenarioRequest, moment: datetime) -> None:
        self._using = using
        self._request = request
        self._moment = moment.timestamp()
        self._compiled = using.facts.compiled(request.scope, request.scenario, request.catalogue_version)
        self._rules = self._compiled.at(moment)
        self._filter = self._compiled.pushed_filter(request.own_filter)
        self._exclude = [*request.exclude, *self._compiled.recipe.exclusions.items]
        self._pool = pool_size(request.count)
        self._tiers: list[list[RankedItem]] = []
        self._made = ScenarioList(source=request.source)

    async def run(self) -> ScenarioList:
        request, rules, made = self._request, self._rules, self._made
        first, by_slot, showings = await self._ask_all()
        excluded = await self._excluded()
        self._tiers.append(first or [])
        async with aclosing(self._further(first)) as further:
            while True:
                facts = await self._facts(by_slot) if self._compiled.reads_facts else None
                candidates = ScenarioCandidates(
                    self._tiers,
                    by_slot,
                    facts,
                    excluded,
                    showings=showings,
                    filtered=request.own_filter is None and self._compiled.filter is not None,
                )
                arranged = arrange(
                    self._compiled, rules, candidates, self._moment, request.count, request.offset, request.source
                )
                if len(arranged.items) >= request.count or (tier := await anext(further, None)) is None:
                    break
                self._tiers.append(tier)
        made.items, made.left_out, made.candidates = arranged.items, arranged.left_out, candidates
        return made

    async def _ask_all(
        self,
    ) -> tuple[list[RankedItem] | None, dict[int, list[RankedItem]], Mapping[str, float]]:
        """The first candidates of the source and, by position, of slots; and what the user was shown."""
        request, rules = self._request, self._rules
        last = request.offset + request.count
        slots = {at: pin for at, (_, pin) in rules.slots.items() if request.offset < at <= last}
        if not slots and rules.rotation is None:  # without the tasks of `gather`, which take a while
            return await self._candidates(request.source, self._filter), {}, {}
        filters = [self._compiled.pushed_filter(request.own_filter, pin) for pin in slots.values()]
        asked = [self._candidates(request.source, self._filter)]
        asked += [self._candidates(pin.source or "", tree) for pin, tree in zip(slots.values(), filters, strict=True)]
        (first, *of_slots), showings = await asyncio.gather(asyncio.gather(*asked), self._showings())
        self._made.slots_ignored = any(items is None for items in of_slots)
        return first, {at: items or [] for at, items in zip(slots, of_slots, strict=True)}, showings

    async def _further(self, first: list[RankedItem] | None) -> AsyncGenerator[list[RankedItem]]:
        """Further candidates: of the source, then of the fallbacks, then popular ones where no model answered."""
        rounds, found = 1, first
        while found is not None and len(found) == self._pool and rounds < MAX_ROUNDS:
            found = await self._candidates(self._request.source, self._filter)
            rounds += 1
            if found:
                yield found
        for fallback in self._compiled.recipe.fallbacks:
            if found := await self._candidates(fallback, self._filter):
                if not any(self._tiers):
                    self._made.source = fallback
                yield found
        if self._made.unavailable is not None:
            exclude = [*self._left_out(), *self._request.seen()]
            if found := await self._using.popular(self._request.scope, self._pool, exclude, self._filter):
                if not any(self._tiers):
                    self._made.source = found[0].algorithm
                yield found

    async def _candidates(self, source: str, filter_: Filter | None) -> list[RankedItem] | None:
        """The first items of a source that are no candidates yet; None where it needs a model and none answers."""
        if source in LIST_SOURCES or source.startswith(SEGMENT_PREFIX):
            return await self._listed(source, filter_)
        query = self._request.query(source, self._pool, self._left_out(), filter_, self._rules.diversity)
        if query is None:
            return []
        try:
            items, release = await self._using.ask(self._request.scope, self._request.catalogue_version, query)
        except ServingUnavailable as unavailable:
            self._made.unavailable = unavailable
            return None
        self._made.release = self._made.release or release
        return items

    async def _listed(self, source: str, filter_: Filter | None) -> list[RankedItem]:
        request = self._request
        if (source == BOUGHT_TOGETHER and request.item_id is None) or (
            source == RECENTLY_VIEWED and request.user_id is None
        ):
            return []
        exclude = [*self._left_out(), *request.seen_of(source)]
        ids = {"item_id": request.item_id, "user_id": request.user_id}
        try:
            found = await self._using.lists.top(request.scope, source, self._pool, filter_, exclude=exclude, **ids)
        except NotFound:  # the segment is gone, or the item: there is no such list, so it has no items
            return []
        text = LISTED.format(source=source)
        return [RankedItem(id_, score, source, text, []) for id_, score in found]

    def _left_out(self) -> list[str]:
        return [*self._exclude, *(item.item_id for tier in self._tiers for item in tier)]

    async def _facts(self, slots: Mapping[int, list[RankedItem]]) -> Mapping[str, ItemFacts]:
        """Of all candidates and pins. Use them before anything is awaited."""
        ids = [item.item_id for tier in (*self._tiers, *slots.values()) for item in tier]
        ids += [item for _, item in self._rules.pins.values()]
        request = self._request
        return await self._using.facts.read(request.scope, request.scenario, ids, request.catalogue_version)

    async def _showings(self) -> Mapping[str, float]:
        if self._rules.rotation is None or self._request.showings is None:
            return {}
        return await self._request.showings(self._rules.rotation.half_life_hours)

    async def _excluded(self) -> frozenset[str]:
        """What the request itself leaves out, by id, by its filter or as seen. No pin brings it back."""
        request = self._request
        excluded = set(request.exclude)
        pinned = {item for _, item in self._rules.pins.values()}
        if pinned and request.own_filter is not None:
            excluded |= pinned - await self._using.facts.matching(request.scope, request.own_filter, pinned)
        if pinned and request.own_seen:
            excluded |= pinned.intersection(request.seen())
        return frozenset(excluded)
