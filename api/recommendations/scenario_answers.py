"""Answers of `recommend` and `similar` to requests that name a scenario."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.problems import NotFound
from api.http.tracing import trace_id
from api.items.catalogue import CatalogueReader
from api.lists.source import ListSource
from api.recommendations.bodies import RecommendBody, SimilarBody, named_field
from api.recommendations.by_scenario import recommend_by_scenario, similar_by_scenario
from api.recommendations.history import HistoryReader, UserView
from api.recommendations.holdout import HOLDOUT, is_held_out
from api.recommendations.recipe_trials import RecipeTrialsOnLists
from api.recommendations.scenario_lists import ScenarioList, ScenarioLists
from api.recommendations.schemas import RecommendRequest, SimilarRequest
from api.recommendations.showings import unchosen_showings
from api.scenarios.facts import ScenarioFacts
from api.scenarios.live import LiveScenario, LiveScenarios
from serving.contracts.filters import Filter
from serving.contracts.messages import Query, RankedItem, RecommendQuery


@dataclass(frozen=True, slots=True)
class ScenarioAnswer:
    """The list of a scenario."""

    scenario: LiveScenario
    made: ScenarioList
    reason: str | None  # why a model did not answer where one was needed
    ignored: list[str]  # what a list without a model did not heed
    holdout: bool = False  # whether that is because the user is held out


class ScenarioAnswers:
    """One per process. ask, popular: see `ScenarioLists`."""

    def __init__(
        self,
        pool: Pool,
        catalogue: CatalogueReader,
        users: HistoryReader,
        lists: ListSource,
        ask: Callable[[TenantScope, int, Query], Awaitable[tuple[list[RankedItem], str]]],
        popular: Callable[[TenantScope, int, list[str], Filter | None], Awaitable[list[RankedItem]]],
    ) -> None:
        self._pool = pool
        self._catalogue = catalogue
        self._users = users
        self._scenarios = LiveScenarios(pool)
        self._lists = ScenarioLists(ScenarioFacts(pool), lists, ask, popular)
        self.trials = RecipeTrialsOnLists(pool, catalogue, users, self._lists)

    async def recommend(
        self,
        scope: TenantScope,
        request: RecommendRequest | RecommendBody,
        filter_: Filter | None,
        query_of: Callable[[UserView], RecommendQuery],
        offset: int = 0,
    ) -> ScenarioAnswer:
        """The list for a user, of popular items alone where the user is held out.

        query_of: the query of the request without its scenario. offset: how many items earlier pages had.
        Raises NotFound where the tenant has no such live scenario.
        """
        # The recipe says what of the user is read, and that read says whether the recipe is still the live one.
        scenario = await self._live(scope, request.scenario, 0)
        while True:
            policy = request.exclude_seen or scenario.recipe.exclusions.seen
            view = await self._users.view(scope, request.user_id, policy)
            read_by, scenario = scenario, await self._live(scope, request.scenario, view.scenario_edition)
            if scenario.recipe.exclusions.seen == read_by.recipe.exclusions.seen:
                break
        showings = partial(unchosen_showings, self._pool, scope, request.user_id)
        asked = recommend_by_scenario(scope, scenario, request, filter_, view, query_of(view), showings, offset)
        holdout = is_held_out(scope.tenant_id, request.user_id, view.holdout_share)
        made = await (self._lists.popular_only(asked) if holdout else self._lists.make(asked))
        session = request.context.session_items if request.context else []
        own = named_field(request, "diversity")
        diversity = scenario.recipe.diversity if own is None else own
        return _answer(scenario, made, holdout, diversity=diversity, sessionItems=session)

    async def similar(
        self, scope: TenantScope, request: SimilarRequest | SimilarBody, filter_: Filter | None
    ) -> ScenarioAnswer:
        """The list for an item. Raises NotFound where the tenant has no such item, or no such live scenario."""
        version, exists, edition = await self._catalogue.find(scope, request.item_id)
        if not exists:
            raise NotFound("There is no such item")
        scenario = await self._live(scope, request.scenario, edition)
        asked = similar_by_scenario(scope, scenario, request, filter_, version, trace_id())
        return _answer(scenario, await self._lists.make(asked), False, itemId=True)

    async def _live(self, scope: TenantScope, scenario_id: str | None, edition: int) -> LiveScenario:
        live = await self._scenarios.get(scope, scenario_id or "", edition)
        if live is None:
            raise NotFound("There is no such live scenario")
        return live


_NOT_FOR_HELD_OUT = ("boosts", "expression", "pins", "caps", "rotation", "fallbacks")
"""What of a recipe does not apply to users who are held out."""


def _answer(scenario: LiveScenario, made: ScenarioList, holdout: bool, **used: object) -> ScenarioAnswer:
    """used: what only models heed of the request and the recipe, by name."""
    ignored = [name for name, value in used.items() if value and made.release is None]
    if holdout:
        ignored += [name for name in _NOT_FOR_HELD_OUT if getattr(scenario.recipe, name)]
    if made.slots_ignored:
        ignored.append("slots")
    reason = HOLDOUT if holdout else None if made.unavailable is None else made.unavailable.reason
    return ScenarioAnswer(scenario, made, reason, ignored, holdout)
