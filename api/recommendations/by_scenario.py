"""Weighs the fields of a request against the recipe of the scenario that it names.

A request's own `algorithm`, `filter`, `excludeSeen` and `diversity` take the place of the recipe's. What its `exclude`
names is left out besides what the recipe excludes.
"""

from collections.abc import Awaitable, Callable, Mapping

from api.database.scope import TenantScope
from api.recommendations.bodies import RecommendBody, SimilarBody, named_field
from api.recommendations.history import UserView
from api.recommendations.scenario_lists import ScenarioRequest
from api.recommendations.schemas import RecommendRequest, SimilarRequest
from api.scenarios.live import LiveScenario
from api.scenarios.recipe import SIMILAR_SOURCE
from feature_store.columns import BOUGHT_TOGETHER
from serving.contracts.filters import Filter
from serving.contracts.histories import read_history, read_ids
from serving.contracts.messages import Query, RecommendQuery, SimilarQuery

Showings = Callable[[float], Awaitable[Mapping[str, float]]]


def recommend_by_scenario(
    scope: TenantScope,
    scenario: LiveScenario,
    request: RecommendRequest | RecommendBody,
    filter_: Filter | None,
    view: UserView,
    query: RecommendQuery,
    showings: Showings,
    offset: int,
) -> ScenarioRequest:
    """What a request for a user wants.

    query: what the request would ask without a scenario. showings: see `unchosen_showings`. offset: how many items
    earlier pages had.
    """
    diversity = named_field(request, "diversity")
    source_named = named_field(request, "algorithm") or scenario.recipe.source
    session = query.exclude[len(request.exclude) :]  # excluded as seen

    of_items = {SIMILAR_SOURCE, BOUGHT_TOGETHER}
    used = {source_named, *scenario.recipe.fallbacks, *(pin.source for pin in scenario.recipe.pins)}
    newest = next(iter(read_history(query.history)[-1:]), None) if of_items & used else None
    item_id = None if newest is None else newest.item_id

    def ask(source: str, count: int, exclude: list[str], tree: Filter | None, diverse: float) -> Query | None:
        if source == SIMILAR_SOURCE:
            if item_id is None:
                return None
            left_out = [*exclude, *session, *read_ids(query.seen)]
            return SimilarQuery(item_id, count, left_out, tree, query.trace_id)
        return RecommendQuery(
            source,
            count,
            query.history,
            [*exclude, *session],
            tree,
            diverse if diversity is None else diversity,
            query.trace_id,
            query.seen,
        )

    return ScenarioRequest(
        scope=scope,
        scenario=scenario,
        catalogue_version=view.catalogue_version,
        count=request.count,
        offset=offset,
        source=source_named,
        exclude=request.exclude,
        seen=lambda: [*read_ids(query.seen), *session],
        own_filter=filter_,
        own_seen=request.exclude_seen is not None,
        query=ask,
        item_id=item_id,
        user_id=request.user_id,
        showings=showings,
    )


def similar_by_scenario(
    scope: TenantScope,
    scenario: LiveScenario,
    request: SimilarRequest | SimilarBody,
    filter_: Filter | None,
    catalogue_version: int,
    trace_id: str,
) -> ScenarioRequest:
    """What a request for similar items wants. A family as source stands for similar items here."""

    def ask(source: str, count: int, exclude: list[str], tree: Filter | None, diverse: float) -> Query | None:
        return SimilarQuery(request.item_id, count, exclude, tree, trace_id)

    return ScenarioRequest(
        scope=scope,
        scenario=scenario,
        catalogue_version=catalogue_version,
        count=request.count,
        offset=0,
        source=scenario.recipe.source,
        exclude=[*request.exclude, request.item_id],
        seen=list,
        own_filter=filter_,
        own_seen=False,
        query=ask,
        item_id=request.item_id,
        user_id=None,
        showings=None,
    )
