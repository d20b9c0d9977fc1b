"""A preview shows the lists that would be made, what rules move and why items are out; saving warns of empty ones."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.fixtures.backend import Backend
from tests.fixtures.people import person
from tests.fixtures.platform import wait_until
from tests.fixtures.usage import units_of

SCENARIOS = "/api/scenarios"


@pytest.fixture
def admin(films: Backend) -> TestClient:
    for user in ("ann", "bob"):
        films.interact(user, "comedy-1", "comedy-2", "western-3")
    return person(films, "admin", "admin")


def saved(admin: TestClient, **recipe: Any) -> Any:
    answer = admin.put(f"{SCENARIOS}/front", json={"name": "Front", "status": "live", **recipe})
    if answer.status_code == 404:
        answer = admin.post(SCENARIOS, json={"id": "front", "name": "Front", "status": "live", **recipe})
    assert answer.is_success, answer.text
    return answer.json()


def previewed(admin: TestClient, *users: str, **body: Any) -> list[Any]:
    answer = admin.post(f"{SCENARIOS}/front/preview", json={"userIds": users, "count": 5, **body})
    assert answer.status_code == 200, answer.text
    found = answer.json()["users"]
    assert [each["userId"] for each in found] == list(users)
    return list(found)


def ids(listed: Any) -> list[str]:
    return [item["itemId"] for item in listed["items"]]


def asked(films: Backend, user: str) -> list[str]:
    body = {"userId": user, "count": 5, "scenario": "front"}
    return [item["itemId"] for item in films.client.post("/api/v1/recommend", json=body).json()]


def test_a_preview_shows_what_requests_get_and_would_get(films: Backend, admin: TestClient) -> None:
    saved(admin, source="hybrid")
    live = {user: asked(films, user) for user in ("ann", "bob", "nobody")}
    best = live["ann"][0]
    recipe = {
        "filter": {"genres": {"$in": ["comedy", "western"]}},
        "exclusions": {"items": [best], "seen": "all"},
        "boosts": [{"filter": {"genres": "western"}, "factor": 100.0}],
        "pins": [{"position": 2, "item": "horror-5"}, {"position": 3, "item": "horror-6"}],
        "caps": [{"field": "year", "atMost": 1}],
    }
    films.sql("UPDATE items SET is_active = false, version = 11 WHERE id = 'horror-6'")
    films.sql("UPDATE catalogues SET version = 11")
    used = units_of(films)
    found = previewed(admin, "ann", "bob", "nobody", recipe=recipe)
    previewed(admin, "only previewed")
    assert units_of(films) == used
    assert {each["userId"]: ids(each["live"]) for each in found} == live
    assert [(each["draft"]["version"], each["live"]["version"]) for each in found] == [(None, 1)] * 3
    reasons = {each["itemId"]: each["reason"] for each in found[0]["draft"]["out"]}
    assert reasons[best] == "filtered by exclusions.items"
    assert reasons["horror-6"] == "hidden"
    assert {reasons.get(item, "seen") for item in ("comedy-1", "comedy-2", "western-3")} == {"seen"}
    assert (
        "filtered by filter"
        in previewed(admin, "ann", recipe={"filter": {"genres": "none"}})[0]["draft"]["out"][0].values()
    )
    (pinned,) = (each for each in found[0]["draft"]["items"] if each["itemId"] == "horror-5")
    assert {"rule": "pins.0", "from": None, "to": 2} in pinned["moves"]
    assert any(move["rule"] == "boosts.0" for each in found[0]["draft"]["items"] for move in each["moves"])
    assert saved(admin, **recipe)["version"] == 2
    after = previewed(admin, "ann", "bob", "nobody")
    assert [each["draft"] for each in after] == [each["live"] for each in after]
    for user, before in zip(("ann", "bob", "nobody"), found, strict=True):
        assert asked(films, user) == ids(before["draft"])
    asked(films, "last")
    wait_until("impressions", lambda: films.sql("SELECT 1 FROM impressions WHERE user_id = 'last'"))
    assert films.sql("SELECT 1 FROM impressions WHERE user_id = 'only previewed'") == []


def test_a_preview_for_items_shows_what_similar_gets_and_would_get(films: Backend, admin: TestClient) -> None:
    saved(admin, source="similar")
    asked_items = ["comedy-1", "western-3"]

    def similar(item: str) -> list[str]:
        body = {"itemId": item, "count": 5, "scenario": "front"}
        return [each["itemId"] for each in films.post("/api/v1/similar", body)]

    def previewed_items(**body: Any) -> list[Any]:
        answer = admin.post(f"{SCENARIOS}/front/preview", json={"itemIds": asked_items, "count": 5, **body})
        assert answer.status_code == 200, answer.text
        assert answer.json()["users"] == []
        return list(answer.json()["items"])

    live = {item: similar(item) for item in asked_items}
    best = live["comedy-1"][0]
    recipe = {
        "source": "hybrid",  # a family stands for items like the given one
        "filter": {"genres": {"$in": ["comedy", "western"]}},
        "exclusions": {"items": [best], "seen": "all"},
        "pins": [
            {"position": 2, "item": "horror-5"},
            {"position": 3, "item": "horror-6"},
            {"position": 4, "item": "comedy-1"},
        ],
        "caps": [{"field": "year", "atMost": 1}],
    }
    films.sql("UPDATE items SET is_active = false, version = 11 WHERE id = 'horror-6'")
    films.sql("UPDATE catalogues SET version = 11")
    used = units_of(films)
    found = previewed_items(recipe=recipe)
    assert [each["itemId"] for each in found] == asked_items
    assert {each["itemId"]: ids(each["live"]) for each in found} == live
    draft = found[0]["draft"]
    reasons = {each["itemId"]: each["reason"] for each in draft["out"]}
    assert (reasons[best], reasons["horror-6"]) == ("filtered by exclusions.items", "hidden")
    assert reasons["comedy-1"] == "filtered by exclude" and draft["degraded"] is None
    assert {"capped by year", "seen"} & set(reasons.values()) == {"capped by year"}
    (pinned,) = (each for each in draft["items"] if each["itemId"] == "horror-5")
    assert {"rule": "pins.0", "from": None, "to": 2} in pinned["moves"]
    assert units_of(films) == used
    saved(admin, **recipe)
    after = previewed_items()
    assert [each["draft"] for each in after] == [each["live"] for each in after]
    assert {each["itemId"]: ids(each["draft"]) for each in found} == {item: similar(item) for item in asked_items}
    assert previewed_items(recipe={"filter": {"genres": "none"}})[0]["draft"]["items"] == []


def test_saving_names_the_rule_that_leaves_nothing(films: Backend, admin: TestClient) -> None:
    assert saved(admin, filter={"genres": "comedy"})["warnings"] == []
    warned = saved(admin, filter={"genres": "opera"})
    assert warned["warnings"] == [{"rule": "filter", "message": "leaves nothing for 2 of 2 users"}]
    assert warned["version"] == 2  # it is saved all the same
    assert saved(admin, filter={"genres": "opera"}, status="archived")["warnings"] == []  # nobody can ask for it
    assert saved(admin, exclusions={"filter": {"year": {"$gt": 0}}})["warnings"][0]["rule"] == "exclusions.filter"
    assert saved(admin, filter={"genres": "opera"}, pins=[{"position": 1, "item": "comedy-1"}])["warnings"] == []


def test_a_preview_is_bounded(films: Backend, admin: TestClient) -> None:
    saved(admin)
    path = f"{SCENARIOS}/front/preview"
    for body in (
        {"userIds": []},
        {"userIds": [f"user-{number}" for number in range(101)]},
        {"userIds": ["ann"], "count": 51},
        {"userIds": ["ann"], "recipe": {"colour": "red"}},
        {"userIds": ["ann"], "colour": "red"},
        {"itemIds": []},
        {"itemIds": [f"comedy-{number}" for number in range(101)]},
        {"userIds": ["ann"], "itemIds": ["comedy-1"]},
        {"count": 5},
    ):
        assert admin.post(path, json=body).status_code == 400
    assert admin.post(path, json={"itemIds": ["comedy-1", "nowhere"]}).status_code == 404
    assert admin.post(f"{SCENARIOS}/gone/preview", json={"userIds": ["ann"]}).status_code == 404


def test_a_scenario_that_is_made_again_has_nothing_of_the_one_before(films: Backend, admin: TestClient) -> None:
    for genre in ("comedy", "western"):
        saved(admin, filter={"genres": genre}, boosts=[{"filter": {"genres": genre}, "factor": 2.0}])
        assert {item.split("-")[0] for item in asked(films, "ann")} == {genre}
        assert admin.delete(f"{SCENARIOS}/front").status_code == 204
