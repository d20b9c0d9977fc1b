"""`GET /api/v1/lists/{source}`: lists for a page without a user, always without what may not be shown."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.fixtures.backend import Backend
from tests.fixtures.usage import units_of

NOW = datetime.now(UTC)


def days_ago(days: int) -> str:
    return (NOW - timedelta(days=days)).isoformat()


@pytest.fixture
def shop(backend: Backend) -> Backend:
    """Soap was bought by two today, salt by one; tea by three, long ago; rice by nobody."""
    backend.add_items(
        {
            "soap": {"kind": "home", "price": 2},
            "salt": {"kind": "food", "price": 1},
            "tea": {"kind": "food", "price": 9},
            "rice": {"kind": "food", "price": 3},
        }
    )
    for user in ("ann", "bob"):
        backend.interact(user, "soap", type_="purchase", timestamp=days_ago(0))
    backend.interact("ann", "salt", type_="purchase", timestamp=days_ago(0))
    for user in ("ann", "bob", "cid"):
        backend.interact(user, "tea", type_="purchase", timestamp=days_ago(90))
    return backend


def store(shop: Backend, source: str, listed: dict[str, float], of_item: str = "") -> None:
    """What the pipeline writes."""
    shop.sql(
        "INSERT INTO item_lists (tenant_id, source, of_item, item_ids, scores) VALUES (%s, %s, %s, %s, %s)",
        [shop.tenant_id, source, of_item, list(listed), list(listed.values())],
    )


def get(shop: Backend, source: str, status: int = 200, **query: Any) -> list[tuple[str, float]]:
    if "filter" in query:
        query["filter"] = json.dumps(query["filter"])
    answer = shop.client.get(f"/api/v1/lists/{source}", params=query)
    assert answer.status_code == status, answer.text
    return [(each["itemId"], each["score"]) for each in answer.json()] if status == 200 else []


def ids(listed: list[tuple[str, float]]) -> list[str]:
    return [id_ for id_, _ in listed]


def segment(shop: Backend, kind: str, filter_: Any = None, behaviour: Any = None) -> str:
    id_ = str(uuid4())
    shop.sql(
        "INSERT INTO segments (tenant_id, id, name, kind, filter, behaviour) VALUES (%s, %s, 'a segment', %s, %s, %s)",
        [shop.tenant_id, id_, kind, *(None if each is None else json.dumps(each) for each in (filter_, behaviour))],
    )
    return id_


def test_popular_is_what_answers_while_no_model_does(shop: Backend) -> None:
    found = get(shop, "popular")
    assert ids(found) == ["soap", "salt", "tea", "rice"]
    assert [score for _, score in found] == pytest.approx([2 / 3, 1 / 2, 3 / 7, 0.0], abs=1e-4)  # 3 / (1 + 90 / 30)
    assert ids(get(shop, "popular", count=1, filter={"kind": "food"})) == ["salt"]


def test_latest_is_by_when_items_came(shop: Backend) -> None:
    for item, days in (("soap", 60), ("tea", 30), ("rice", 90), ("salt", 0)):
        shop.sql("UPDATE items SET created_at = %s WHERE id = %s", [NOW - timedelta(days=days), item])
    found = get(shop, "latest")
    assert found == [("salt", 1.0), ("tea", 0.5), ("soap", 0.333333), ("rice", 0.25)]
    shop.client.patch("/api/items/salt", json={"isActive": False}).raise_for_status()
    shop.add_items({"new": {"kind": "food"}})
    assert ids(get(shop, "latest", count=2, filter={"kind": "food"})) == ["new", "tea"]


def test_a_stored_list_leaves_out_what_is_hidden_deleted_or_filtered_since(shop: Backend) -> None:
    assert get(shop, "trending") == []  # before the pipeline has run
    store(shop, "trending", {"tea": 0.9, "soap": 0.8, "salt": 0.7, "gone": 0.6, "rice": 0.5})
    assert get(shop, "trending", count=2) == [("tea", 0.9), ("soap", 0.8)]
    shop.client.patch("/api/items/tea", json={"isActive": False}).raise_for_status()
    shop.client.delete("/api/items/salt").raise_for_status()
    assert get(shop, "trending") == [("soap", 0.8), ("rice", 0.5)]
    assert get(shop, "trending", filter={"kind": "food"}) == [("rice", 0.5)]


def test_bought_together_is_of_an_item(shop: Backend) -> None:
    store(shop, "bought-together", {"salt": 0.4, "rice": 0.1}, of_item="tea")
    assert get(shop, "bought-together", itemId="tea") == [("salt", 0.4), ("rice", 0.1)]
    assert get(shop, "bought-together", itemId="soap") == []
    get(shop, "bought-together", 404, itemId="nothing")
    get(shop, "bought-together", 400)
    shop.client.delete("/api/items/tea").raise_for_status()
    get(shop, "bought-together", 404, itemId="tea")


def test_recently_viewed_is_live_and_ends_with_the_user(shop: Backend) -> None:
    assert ids(get(shop, "recently-viewed", userId="ann")) == ["soap", "salt", "tea"]
    shop.interact("ann", "rice", type_="view", timestamp=(NOW + timedelta(minutes=1)).isoformat())
    found = get(shop, "recently-viewed", userId="ann")
    assert ids(found)[0] == "rice" and found[-1] == ("tea", pytest.approx(0.25, abs=1e-4))
    assert ids(get(shop, "recently-viewed", userId="ann", filter={"price": {"$gt": 2}})) == ["rice", "tea"]
    assert get(shop, "recently-viewed", userId="nobody") == []
    get(shop, "recently-viewed", 400)


def test_similar_has_its_fallback_and_label(shop: Backend) -> None:
    answer = shop.client.get("/api/v1/lists/similar", params={"itemId": "soap", "count": 2})
    assert [each["itemId"] for each in answer.json()] == ["salt", "tea"]
    assert answer.headers["X-Recommendation-Degraded"] == "serving-unavailable; ignored=itemId"
    get(shop, "similar", 404, itemId="nothing")
    get(shop, "similar", 400)


def test_a_segment_of_items_by_a_filter_is_right_at_once(shop: Backend) -> None:
    id_ = segment(shop, "items", {"kind": "food"})
    assert ids(get(shop, f"segment:{id_}")) == ["salt", "tea", "rice"]
    assert ids(get(shop, f"segment:{id_}", filter={"price": {"$gte": 3}})) == ["tea", "rice"]
    shop.client.patch("/api/items/soap", json={"metadata": {"kind": "food"}}).raise_for_status()
    assert ids(get(shop, f"segment:{id_}")) == ["soap", "salt", "tea", "rice"]


def test_a_segment_by_behaviour_is_what_the_pipeline_stored(shop: Backend) -> None:
    behaviour = {"interactionTypes": ["purchase"], "atLeast": 2, "days": 30}
    users, items = (segment(shop, kind, {"kind": "food"}, behaviour) for kind in ("users", "items"))
    for id_ in (users, items):
        assert get(shop, f"segment:{id_}") == []
        store(shop, f"segment:{id_}", {"soap": 0.8, "tea": 0.5})
    assert ids(get(shop, f"segment:{users}")) == ["soap", "tea"]  # its filter says what a user must have bought
    assert ids(get(shop, f"segment:{items}")) == ["tea"]


@pytest.mark.parametrize(
    "source", ["nothing", "segment:", "segment:x", "segment:00000000-0000-4000-8000-000000000000", "hybrid", "Popular"]
)
def test_a_list_that_is_not_there_is_404_and_costs_nothing(shop: Backend, source: str) -> None:
    before = units_of(shop)
    get(shop, source, 404)
    assert units_of(shop) == before
    get(shop, "popular")
    assert units_of(shop) == before + 1


def test_a_list_of_another_tenant_is_not_there(shop: Backend, tenants: Any) -> None:
    id_ = segment(shop, "items", {"kind": "food"})
    store(shop, "trending", {"tea": 0.9})
    other = tenants.key(tenants.create("other"))
    assert shop.client.get(f"/api/v1/lists/segment:{id_}", headers=other).status_code == 404
    for source in ("trending", "popular", "latest", "recently-viewed?userId=ann"):
        answer = shop.client.get(f"/api/v1/lists/{source}", headers=other)
        assert (answer.status_code, answer.json()) == (200, []), source


@pytest.mark.parametrize("text", ["{", "[]", '{"$where": 1}', "\u0000"])
def test_a_filter_that_is_none_is_400(shop: Backend, text: str) -> None:
    answer = shop.client.get("/api/v1/lists/popular", params={"filter": text})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"].startswith("filter")
