"""Where scores or what they count for tie, a scenario keeps its source's order, however much of the source it reads."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from api.database.engine import Database
from api.database.scope import TenantScope
from api.lists.source import ListSource
from api.recommendations.scenario_lists import ScenarioLists, ScenarioRequest
from api.scenarios.facts import ScenarioFacts
from api.scenarios.live import LiveScenario
from api.scenarios.recipe import Recipe
from serving.contracts.filters import parse_filter
from serving.contracts.messages import Query, RankedItem, RecommendQuery
from tests.feature_store.rows import add_items, add_tenant
from tests.fixtures.filters import FilteredItems, says
from tests.fixtures.slow_scenarios import slow_list
from tests.fixtures.source_rankings import Ranked, SourceRankings

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
SCOPE = TenantScope("acme")
BRANDS = 4
ITEMS = FilteredItems(
    {
        f"item-{n:03}": {"brand": f"brand-{n % BRANDS}", "tags": [f"tag-{n % 7}", f"tag-{n % 3}"], "n": n}
        for n in range(240)
    }
)
SOURCES = ("collaborative", "content-based")
NEVER_ABOVE_0 = {"$add": [-1, {"$multiply": [-0.5, {"$number": "n"}]}]}
PARTLY_0 = {"$add": [100, {"$multiply": [-1, {"$number": "n"}]}]}


class Models:
    """Rankings of all items by two models, which are asked as the model server is."""

    def __init__(self) -> None:
        self.ranked: dict[str, Ranked] = {}
        self.asked = 0

    def best(self, source: str, count: int, exclude: list[str], tree: Any) -> Ranked:
        left_out = set(exclude)
        fitting = (
            pair
            for pair in self.ranked[source]
            if pair[0] not in left_out and (tree is None or says(tree, ITEMS[pair[0]]))
        )
        return list(islice(fitting, count))

    def ask(self, body: dict[str, Any]) -> Ranked:
        """The answer to a request without a scenario."""
        tree = None if body["filter"] is None else parse_filter(body["filter"])
        return self.best(body["algorithm"], body["count"], body["exclude"], tree)

    async def answer(self, scope: TenantScope, version: int, query: Query) -> tuple[list[RankedItem], str]:
        assert isinstance(query, RecommendQuery)
        self.asked += 1
        found = self.best(query.algorithm, query.count, query.exclude, query.filter)
        return [RankedItem(id_, score, query.algorithm, "", []) for id_, score in found], "release"


class Product:
    """Makes lists as the API does, over the catalogue of a database and over these models."""

    def __init__(self, runner: asyncio.Runner, database: Database, models: Models) -> None:
        self.runner, self.models = runner, models
        self.made = 0

        async def popular(*_: Any) -> list[RankedItem]:
            raise AssertionError("the models always answer")

        self.lists = ScenarioLists(ScenarioFacts(database.pool), ListSource(database.pool), models.answer, popular)

    def list_by(self, recipe: Recipe, count: int) -> list[str]:
        self.made += 1

        def query(source: str, count: int, exclude: list[str], tree: Any, diversity: float) -> Query:
            return RecommendQuery(source, count, exclude=exclude, filter=tree, diversity=diversity)

        request = ScenarioRequest(
            scope=SCOPE,
            scenario=LiveScenario("ties", self.made, recipe),
            catalogue_version=1,
            count=count,
            offset=0,
            source=recipe.source,
            exclude=[],
            seen=list,
            own_filter=None,
            own_seen=False,
            query=query,
            item_id=None,
            user_id=None,
            showings=None,
        )
        return [item.item_id for item in self.runner.run(self.lists.make(request, NOW)).items]


@pytest.fixture
def product(database_url: str) -> Iterator[Product]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_tenant(connection, SCOPE.tenant_id)
        add_items(connection, SCOPE.tenant_id, ITEMS)
    with asyncio.Runner() as runner:
        database = Database(database_url)
        runner.run(database.open())
        yield Product(runner, database, Models())
        runner.run(database.close())


@st.composite
def rankings(draw: st.DrawFn) -> dict[str, Ranked]:
    """Every item by each source, best first, with one to five different scores; in some, brand stands after brand."""
    found = {}
    for source in SOURCES:
        levels = draw(st.integers(1, 5))
        order = draw(st.randoms(use_true_random=False)).sample(sorted(ITEMS), len(ITEMS))
        if draw(st.booleans()):
            brands = draw(st.permutations(range(BRANDS)))
            order.sort(key=lambda id_: brands[ITEMS[id_]["n"] % BRANDS])
        found[source] = [(id_, 1 - at * levels // len(ITEMS) / levels) for at, id_ in enumerate(order)]
    return found


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """Recipes whose factors are often 0, and whose caps pass over most items."""
    condition = st.builds(lambda n: {"brand": f"brand-{n}"}, st.integers(0, 3)) | st.just({"n": {"$gte": 200}})
    pin = st.builds(lambda id_: {"item": id_}, st.sampled_from(sorted(ITEMS))) | st.builds(
        lambda source, filter_: {"source": source, "filter": filter_},
        st.sampled_from(SOURCES),
        st.none() | condition | st.builds(lambda n: {"n": n}, st.integers(0, 239)),
    )
    cap = st.builds(
        lambda field, most: {"field": field, "atMost": most}, st.sampled_from(["brand", "tags"]), st.integers(1, 2)
    )
    source, other = draw(st.permutations(SOURCES))
    return {
        "source": source,
        "fallbacks": draw(st.sampled_from([[other], [other], []])),
        "filter": draw(st.none() | condition),
        "boosts": draw(
            st.lists(
                st.builds(lambda c, f: {"filter": c, "factor": f}, condition, st.sampled_from([0, 0.5])), max_size=2
            )
        ),
        "expression": draw(st.sampled_from([None, NEVER_ABOVE_0, PARTLY_0])),
        "pins": [{"position": at, **draw(pin)} for at in draw(st.lists(st.integers(1, 6), max_size=2, unique=True))],
        "caps": draw(st.lists(cap, min_size=1, max_size=2)),
    }


def test_ties_stay_in_the_order_of_their_source_however_far_it_is_read(product: Product) -> None:
    @settings(max_examples=60, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(ranked=rankings(), recipe=recipes(), count=st.sampled_from([3, 5, 12]))
    def compare(ranked: dict[str, Ranked], recipe: dict[str, Any], count: int) -> None:
        product.models.ranked = ranked
        written = Recipe.model_validate(recipe)
        conditions = [] if written.filter is None else [written.filter]
        read = SourceRankings(product.models.ask, conditions, [])
        shown = written.model_dump(mode="json", by_alias=True)
        right = slow_list(shown, ITEMS, read, NOW, count, 0, [], None)
        assert product.list_by(written, count) == right
        assert product.list_by(written, count) == right

    compare()


def test_a_fallback_comes_after_all_candidates_of_the_source(product: Product) -> None:
    """The source is asked for 5 x 30 items; the only one of the second brand stands at place 140."""
    brands = {id_: ITEMS[id_]["brand"] for id_ in sorted(ITEMS)}
    first = [id_ for id_, brand in brands.items() if brand != "brand-1"][:139]
    of_brand_1, *others = [id_ for id_ in brands if id_ not in first and brands[id_] == "brand-1"]
    rest = [id_ for id_ in brands if id_ not in first and id_ != of_brand_1]
    product.models.ranked = {
        "content-based": [(id_, 0.5) for id_ in [*first, of_brand_1, *rest]],
        "collaborative": [(id_, 0.5) for id_ in [*others, of_brand_1]],
    }
    recipe = Recipe.model_validate(
        {
            "source": "content-based",
            "fallbacks": ["collaborative"],
            "expression": NEVER_ABOVE_0,
            "caps": [{"field": "brand", "atMost": 1}],
        }
    )
    listed = product.list_by(recipe, 4)
    assert len(listed) == 4 and listed[3] == of_brand_1
    read = SourceRankings(product.models.ask, [], [])
    assert slow_list(recipe.model_dump(mode="json", by_alias=True), ITEMS, read, NOW, 4, 0, [], None) == listed
