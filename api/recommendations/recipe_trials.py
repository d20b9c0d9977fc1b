"""Tries a recipe on users or items: makes the lists that a scenario with it would show, and says what is out and why.

The sources of a list get its filter, and what is left out by id, so what these leave out is no candidate. It is found
by a second list: the one that the source makes with no rule at all. Nothing is recorded as shown.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.problems import NotFound
from api.http.tracing import trace_id
from api.items.catalogue import CatalogueReader
from api.recommendations.by_scenario import recommend_by_scenario, similar_by_scenario
from api.recommendations.history import HistoryReader, UserView
from api.recommendations.scenario_lists import ScenarioList, ScenarioLists, ScenarioRequest, pool_size
from api.recommendations.schemas import RecommendRequest, SimilarRequest
from api.recommendations.showings import unchosen_showings
from api.scenarios.arrange import ScenarioCandidates, arrange
from api.scenarios.effects import effects_of
from api.scenarios.facts import ScenarioFacts
from api.scenarios.live import LiveScenario
from api.scenarios.recipe import Recipe
from api.scenarios.rules import CompiledRecipe, RulesInForce
from api.scenarios.trials import TriedList
from serving.contracts.messages import EMPTY_ARRAY, RankedItem, RecommendQuery

LISTS_AT_ONCE = 8


@dataclass(frozen=True)
class RecipeTrialsOnLists:
    """The `RecipeTrials` of the application."""

    pool: Pool
    catalogue: CatalogueReader
    users: HistoryReader
    lists: ScenarioLists

    async def try_recipe(
        self,
        scope: TenantScope,
        recipe: Recipe,
        user_ids: Sequence[str],
        count: int,
        moment: datetime,
        *,
        explained: bool,
    ) -> list[TriedList]:
        """The lists of these users, in their order."""
        return await self._trial(scope, recipe, count, moment, explained).on_users(user_ids)

    async def try_on_items(
        self, scope: TenantScope, recipe: Recipe, item_ids: Sequence[str], count: int, moment: datetime
    ) -> list[TriedList]:
        """The lists of items like each of these. Raises NotFound where the tenant lacks one of them."""
        return await self._trial(scope, recipe, count, moment, explained=True).on_items(item_ids)

    def _trial(self, scope: TenantScope, recipe: Recipe, count: int, moment: datetime, explained: bool) -> "_Trial":
        # The recipe is stored nowhere, so what its rules say of items is kept for this trial alone.
        lists = replace(self.lists, facts=ScenarioFacts(self.pool))
        return _Trial(self, lists, scope, recipe, count, moment, explained)


@dataclass(frozen=True)
class _Trial:
    """One recipe at one moment, for users or items of one tenant."""

    using: RecipeTrialsOnLists
    lists: ScenarioLists
    scope: TenantScope
    recipe: Recipe
    count: int
    moment: datetime
    explained: bool

    async def on_users(self, user_ids: Sequence[str]) -> list[TriedList]:
        return await _few_at_once(self._on_user, user_ids)

    async def on_items(self, item_ids: Sequence[str]) -> list[TriedList]:
        found = await asyncio.gather(*(self.using.catalogue.find(self.scope, item_id) for item_id in item_ids))
        versions = {item_id: version for item_id, (version, exists, _) in zip(item_ids, found, strict=True) if exists}
        if len(versions) < len(item_ids):
            raise NotFound("There is no such item")

        async def one(item_id: str) -> TriedList:
            return await self._tried(partial(self._request_for_item, item_id, versions[item_id]))

        return await _few_at_once(one, item_ids)

    async def _on_user(self, user_id: str) -> TriedList:
        view = await self.using.users.view(self.scope, user_id, self.recipe.exclusions.seen)
        return await self._tried(partial(self._request_for_user, user_id, view))

    async def _tried(self, request: Callable[[LiveScenario, int, bool], ScenarioRequest]) -> TriedList:
        """The list of a request by the recipe.

        request: by a scenario, the length of the list and whether what the user had is left out.
        """
        asked = request(LiveScenario("", 1, self.recipe), self.count, True)
        made = await self.lists.make(asked, self.moment)
        if made.candidates is not None and made.candidates.facts is not None:  # others change them meanwhile
            made.candidates = replace(made.candidates, facts=dict(made.candidates.facts))
        compiled = CompiledRecipe.of(self.recipe)
        rules = compiled.at(self.moment)
        tried = TriedList(
            made.items, dict(made.left_out), degraded=None if made.unavailable is None else made.unavailable.reason
        )
        if self.explained or not made.items:
            bare = LiveScenario("", 0, Recipe.model_construct(source=self.recipe.source))
            without = request(bare, pool_size(self.count), False)
            source = await self.lists.make(without, self.moment)
            tried.left_out.update(await self._left_out(compiled, rules, asked, made, source))
        if self.explained and made.candidates is not None:
            tried.effects.extend(
                await effects_of(compiled, rules, made.candidates, self.moment.timestamp(), self.count)
            )
        return tried

    def _request_for_item(
        self, item_id: str, catalogue_version: int, scenario: LiveScenario, count: int, _: bool
    ) -> ScenarioRequest:
        request = SimilarRequest(item_id=item_id, count=count, exclude=[])
        return similar_by_scenario(self.scope, scenario, request, None, catalogue_version, trace_id())

    def _request_for_user(
        self, user_id: str, view: UserView, scenario: LiveScenario, count: int, all_seen: bool
    ) -> ScenarioRequest:
        """all_seen: whether what the user had is left out."""
        request = RecommendRequest(user_id=user_id, count=count)
        seen = view.seen if all_seen else EMPTY_ARRAY
        query = RecommendQuery(request.algorithm, count, view.history, [], None, 0.0, trace_id(), seen)
        showings = partial(unchosen_showings, self.using.pool, self.scope, user_id)
        return recommend_by_scenario(self.scope, scenario, request, None, view, query, showings, 0)

    async def _left_out(
        self,
        compiled: CompiledRecipe,
        rules: RulesInForce,
        asked: ScenarioRequest,
        made: ScenarioList,
        source: ScenarioList,
    ) -> dict[str, str]:
        """Why items that the source has, or that are pinned, are not in the list: by id, exclusions, filter or seen."""
        shown = {item.item_id for item in made.items}
        pins = [RankedItem(item, 0.0, "", "", []) for _, item in rules.pins.values()]
        others = [item for item in (*source.items, *pins) if item.item_id not in shown]
        ids = [item.item_id for item in others]
        facts = await self.lists.facts.read(self.scope, asked.scenario, ids, asked.catalogue_version)
        candidates = ScenarioCandidates(
            [others],
            facts=facts,
            excluded=frozenset(asked.exclude),  # the item itself
            seen=frozenset(asked.seen_of(asked.source)),
            filtered=compiled.filter is not None,
        )
        unpinned = replace(rules, pins={}, slots={}, caps=())
        return arrange(compiled, unpinned, candidates, self.moment.timestamp(), self.count).left_out


async def _few_at_once(make: Callable[[str], Awaitable[TriedList]], ids: Sequence[str]) -> list[TriedList]:
    free = asyncio.Semaphore(LISTS_AT_ONCE)

    async def one(id_: str) -> TriedList:
        async with free:
            return await make(id_)

    return list(await asyncio.gather(*map(one, ids)))
