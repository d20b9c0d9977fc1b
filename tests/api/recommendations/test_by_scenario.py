"""`recommend` and `similar` by scenarios, over a real model server."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.scenarios.arrange import PINNED
from serving.contracts.messages import MAX_COUNT
from tests.fixtures.backend import Backend
from tests.fixtures.filters import FilteredItems
from tests.fixtures.people import person
from tests.fixtures.platform import wait_until
from tests.fixtures.random_scenarios import RandomRecipes
from tests.fixtures.releases import small_dataset
from tests.fixtures.slow_scenarios import slow_list
from tests.fixtures.usage import units_of

RECOMMEND, NEXT, SIMILAR = "/api/v1/recommend", "/api/v1/recommend/next", "/api/v1/similar"
SOURCES = ("collaborative", "content-based", "hybrid")


@pytest.fixture
def make(films: Backend) -> Callable[..., Any]:
    """Makes a scenario, live unless it says otherwise, and returns it as it is shown."""
    admin = person(films, "admin", "admin")
    return lambda id_, status="live", **recipe: _made(admin, {"id": id_, "name": id_, "status": status, **recipe})


def _made(admin: TestClient, body: Any) -> Any:
    response = admin.post("/api/scenarios", json=body)
    assert response.status_code == 201, response.text
    return response.json()


def test_fifty_users_get_by_twenty_random_scenarios_what_the_slow_model_says(
    films: Backend, make: Callable[..., Any]
) -> None:
    random = Random(15)
    dataset = small_dataset()
    items = FilteredItems(dict(zip(dataset.items.ids, dataset.items.metadata, strict=True)))
    random_recipes = RandomRecipes(random, items, SOURCES)
    users = [f"user-{number}" for number in range(50)]
    for user in users:
        films.interact(user, *random.sample(sorted(items), 4))
    rankings = {user: ranked_everything(films, user) for user in users}
    listed_items = 0
    for number in range(20):
        scenario = make(f"random-{number}", **random_recipes.recipe())
        for user in users:
            count, gone = random.choice([3, 10, 20]), random.sample(sorted(items), 2)
            own = random_recipes.some(random_recipes.condition, 0.2)
            body = {"userId": user, "count": count, "scenario": scenario["id"], "exclude": gone, "filter": own}
            shown: list[str] = []
            id_ = ""
            for page in range(3 if user.endswith("7") else 1):
                moments = [datetime.now(UTC)]
                path, asked = (NEXT, {"recommendationId": id_, "count": count}) if page else (RECOMMEND, body)
                response = films.client.post(path, json=asked)
                moments.append(datetime.now(UTC))  # a window may open or close meanwhile
                assert response.headers["X-Scenario"] == f"{scenario['id']}@1"
                id_ = response.headers["X-Recommendation-Id"]
                got = [each["itemId"] for each in response.json()]
                context = (scenario, items, lambda source, _, of=rankings[user]: of[source])
                right = (slow_list(*context, at, count, len(shown), [*gone, *shown], own) for at in moments)
                assert any(got == each for each in right)
                shown += got
            scores = dict(rankings[user][scenario["source"]])
            ranked = [each for each in response.json() if each["explanation"] != PINNED]
            assert (
                scenario["pins"]
                or scenario["fallbacks"]
                or all(each["score"] == scores[each["itemId"]] for each in ranked)
            )
            listed_items += len(shown)
    assert listed_items > 5_000


def listed(films: Backend, path: str = RECOMMEND, **body: Any) -> list[str]:
    return [each["itemId"] for each in films.post(path, {"count": 5, **body})]


def test_only_a_live_scenario_of_the_tenant_can_be_asked_for(films: Backend, make: Callable[..., Any]) -> None:
    make("draft", status="draft")
    make("old", status="archived")
    films.sql("INSERT INTO tenants (id) VALUES ('other')")
    films.sql("INSERT INTO catalogues (tenant_id, version) VALUES ('other', 1)")
    films.sql(
        "WITH theirs AS (INSERT INTO scenarios (tenant_id, id, name, status, version, live_version) "
        "VALUES ('other', 'theirs', 'x', 'live', 1, 1)) "
        "INSERT INTO scenario_versions (tenant_id, scenario_id, version, recipe) VALUES ('other', 'theirs', 1, '{}')"
    )
    make("live")
    before = units_of(films)
    for id_ in ("draft", "old", "theirs", "never-was"):
        films.post(RECOMMEND, {"userId": "ann", "count": 5, "scenario": id_}, 404)
        films.post(SIMILAR, {"itemId": "comedy-1", "count": 5, "scenario": id_}, 404)
    assert units_of(films) == before
    films.post(RECOMMEND, {"userId": "ann", "count": 5, "scenario": "live"})
    films.post(SIMILAR, {"itemId": "comedy-1", "count": 5, "scenario": "live"})
    assert units_of(films) == before + 2


def test_a_change_of_the_recipe_or_of_an_item_holds_from_the_next_request_on(
    films: Backend, make: Callable[..., Any]
) -> None:
    pins = [{"position": 1, "item": "western-7"}, {"position": 2, "item": "western-8"}]
    make("front", pins=pins, boosts=[{"filter": {"sale": True}, "factor": 100}])
    ask = {"userId": "ann", "scenario": "front", "algorithm": "collaborative"}
    first = listed(films, **ask)
    assert first[:2] == ["western-7", "western-8"]
    films.client.patch("/api/items/western-7", json={"isActive": False}).raise_for_status()
    films.client.patch(f"/api/items/{first[4]}", json={"metadata": {"sale": True}}).raise_for_status()
    assert listed(films, **ask)[:2] == [first[4], "western-8"]
    films.client.patch("/api/items/western-7", json={"isActive": True}).raise_for_status()
    assert listed(films, **ask)[:3] == [*first[:2], first[4]]
    admin = person(films, "admin", "admin")
    admin.patch("/api/scenarios/front", json={"pins": pins[1:]}).raise_for_status()
    response = films.client.post(RECOMMEND, json={"count": 5, **ask})
    assert response.headers["X-Scenario"] == "front@2"
    assert [each["itemId"] for each in response.json()][:2] == [first[4], "western-8"]
    admin.patch("/api/scenarios/front", json={"status": "archived"}).raise_for_status()
    films.post(RECOMMEND, {"count": 5, **ask}, 404)


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8"])
def test_fields_of_the_request_win_in_both_ways_to_the_answer(
    films: Backend, make: Callable[..., Any], media_type: str
) -> None:
    films.interact("ann", "western-1", "western-2")
    pins = [{"position": 1, "item": "western-1"}, {"position": 2, "item": "comedy-1"}]
    make("front", source="content-based", filter={"genres": "western"}, exclusions={"seen": "all"}, pins=pins)

    def ask(**own: Any) -> tuple[list[str], set[str]]:
        body = json.dumps({"userId": "ann", "count": 5, "scenario": "front", **own})
        response = films.client.post(RECOMMEND, content=body, headers={"Content-Type": media_type}).raise_for_status()
        assert response.headers["X-Scenario"] == "front@1"
        return [each["itemId"] for each in response.json()], {each["algorithm"] for each in response.json()[2:]}

    found, families = ask()
    assert found[:2] == ["western-1", "comedy-1"] and families == {"content-based"}  # a pin wins over both
    assert all(each.startswith("western") for each in found[2:]) and "western-2" not in found
    assert ask(algorithm="collaborative")[1] == {"collaborative"}
    horrors = ask(filter={"genres": "horror"})[0]
    assert len(horrors) == 5 and all(each.startswith("horror") for each in horrors)
    assert "western-2" in ask(excludeSeen="none", count=20)[0]
    assert "western-1" not in ask(excludeSeen="all")[0]
    without = ask(exclude=["western-1"])[0]
    assert "western-1" not in without and without[1] == "comedy-1"


def test_similar_items_and_lists_are_arranged_too(films: Backend, make: Callable[..., Any]) -> None:
    films.interact("ann", "horror-3", "horror-4")
    westerns = {"filter": {"genres": "western"}, "pins": [{"position": 1, "item": "comedy-9"}]}
    make("front", **westerns)
    make("popular", source="popular", caps=[{"field": "genres", "atMost": 1}], fallbacks=["latest"])
    make("like-last", source="similar", exclusions={"seen": "all"})
    make("gone", source="segment:00000000-0000-0000-0000-000000000000", fallbacks=["recently-viewed", "popular"])
    similar = listed(films, SIMILAR, itemId="western-1", scenario="front")
    assert similar[0] == "comedy-9" and all(each.startswith("western") for each in similar[1:])
    assert "western-1" not in similar
    popular = listed(films, userId="bob", scenario="popular")
    assert popular[0] in ("horror-3", "horror-4") and [each.partition("-")[0] for each in popular] == sorted(
        {each.partition("-")[0] for each in popular}, key=[each.partition("-")[0] for each in popular].index
    )
    assert listed(films, userId="ann", scenario="like-last") == listed(
        films, SIMILAR, itemId="horror-4", exclude=["horror-3"]
    )
    assert listed(films, userId="nobody", scenario="like-last") == []
    gone = films.post(RECOMMEND, {"userId": "ann", "count": 5, "scenario": "gone"})
    assert [each["algorithm"] for each in gone] == ["recently-viewed"] * 2 + ["popular"] * 3


def test_recently_viewed_shows_seen_items_unless_they_are_excluded(films: Backend, make: Callable[..., Any]) -> None:
    films.sql("UPDATE tenants SET exclude_seen = 'all'")
    films.interact("ann", "horror-3", "horror-4")
    make("again", source="recently-viewed")
    make("never-again", source="recently-viewed", exclusions={"seen": "all"})
    assert sorted(listed(films, userId="ann", scenario="again")) == ["horror-3", "horror-4"]
    assert listed(films, userId="ann", scenario="again", excludeSeen="all") == []
    assert listed(films, userId="ann", scenario="never-again") == []


def test_what_was_shown_and_not_chosen_sinks(films: Backend, make: Callable[..., Any]) -> None:
    make("front", source="collaborative", rotation={"halfLifeHours": 24, "strength": 1})
    first = listed(films, userId="ann", scenario="front")
    await_impressions(films, 1)
    films.sql("UPDATE interactions SET occurred_at = now()")
    films.interact("ann", first[2])
    again = listed(films, userId="ann", scenario="front")
    assert not set(again) & (set(first) - {first[2]})
    await_impressions(films, 2)
    assert films.sql("SELECT DISTINCT scenario, scenario_version FROM impressions") == [("front", 1)]
    films.sql("UPDATE impressions SET created_at = created_at - interval '11 days'")
    assert set(listed(films, userId="ann", scenario="front")) & set(first)


def test_who_is_held_out_gets_popular_items_by_filter_and_exclusions_alone(
    films: Backend, make: Callable[..., Any]
) -> None:
    films.interact("ann", "horror-3", "western-4", "western-5")
    films.sql("UPDATE tenants SET holdout_share = 1")
    pins = [{"position": 1, "item": "comedy-1"}]
    make("front", filter={"genres": "western"}, exclusions={"items": ["western-5"]}, pins=pins)
    response = films.client.post(RECOMMEND, json={"userId": "bob", "count": 5, "scenario": "front"})
    assert (response.headers["X-Scenario"], response.headers["X-Recommendation-Degraded"]) == (
        *("front@1", "holdout; ignored=pins"),
    )
    found = [each["itemId"] for each in response.json()]
    assert found[0] == "western-4" and all(each.startswith("western") for each in found) and "western-5" not in found
    await_impressions(films, 1)
    assert films.sql("SELECT holdout, scenario, algorithm FROM impressions") == [(True, "front", "popularity")]


def await_impressions(films: Backend, count: int) -> None:
    wait_until("impressions", lambda: films.sql("SELECT count(*) FROM impressions") == [(count,)])


def test_without_a_model_popular_items_are_arranged(backend: Backend) -> None:
    backend.add_items({id_: {"brand": id_[0]} for id_ in ("a1", "a2", "b1", "c1")})
    backend.interact("ann", "a1", "a2", type_="purchase")
    backend.interact("ann", "b1")
    recipe = {"caps": [{"field": "brand", "atMost": 1}], "pins": [{"position": 1, "item": "c1"}], "diversity": 0.5}
    admin = person(backend, "admin", "admin")
    _made(admin, {"id": "front", "name": "x", "status": "live", **recipe})
    _made(
        admin,
        {
            "id": "slot",
            "name": "x",
            "status": "live",
            "source": "popular",
            "pins": [{"position": 1, "source": "hybrid"}],
        },
    )
    _made(admin, {"id": "other", "name": "x", "status": "live", "fallbacks": ["latest"]})

    def ask(scenario: str) -> tuple[list[str], str | None, set[str]]:
        response = backend.client.post(RECOMMEND, json={"userId": "bob", "count": 4, "scenario": scenario})
        answer = response.json()
        assert response.headers["X-Scenario"] == f"{scenario}@1"
        algorithms = {each["algorithm"] for each in answer}
        return [each["itemId"] for each in answer], response.headers.get("X-Recommendation-Degraded"), algorithms

    listed_items, degraded, _ = ask("front")
    assert listed_items[0] == "c1" and listed_items[1][0] == "a" and listed_items[2:] == ["b1"]
    assert degraded == "serving-unavailable; ignored=diversity"
    assert ask("slot")[1:] == ("serving-unavailable; ignored=slots", {"popular"})
    assert ask("other")[1:] == ("serving-unavailable", {"latest"})


def ranked_everything(films: Backend, user: str) -> dict[str, list[tuple[str, float]]]:
    """By source all 60 films with their scores, as requests without a scenario get them."""
    found = {}
    for source in SOURCES:
        answer = films.post(RECOMMEND, {"userId": user, "count": MAX_COUNT, "algorithm": source})
        found[source] = [(each["itemId"], each["score"]) for each in answer]
    return found
