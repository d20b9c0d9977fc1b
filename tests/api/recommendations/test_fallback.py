"""Without a model server the API answers with popular items, and labels them."""

from datetime import UTC, datetime, timedelta

import pytest

from serving.contracts.messages import ALGORITHMS
from tests.fixtures.backend import Backend

DAYS_AGO = {days: (datetime.now(UTC) - timedelta(days=days)).isoformat() for days in (1, 90)}


@pytest.fixture
def shop(backend: Backend) -> Backend:
    """Soap is bought today by two, salt by one; tea was bought by three, long ago; rice by nobody."""
    backend.add_items(
        {
            "soap": {"kind": "home", "price": 2},
            "salt": {"kind": "food", "price": 1},
            "tea": {"kind": "food", "price": 9},
            "rice": {"kind": "food", "price": 3},
        }
    )
    for user in ("ann", "bob"):
        backend.interact(user, "soap", type_="purchase", timestamp=DAYS_AGO[1])
    backend.interact("ann", "salt", type_="purchase", timestamp=DAYS_AGO[1])
    for user in ("ann", "bob", "cid"):
        backend.interact(user, "tea", type_="purchase", timestamp=DAYS_AGO[90])
    return backend


def ids(answer: list[dict[str, object]]) -> list[object]:
    return [element["itemId"] for element in answer]


def test_newer_interest_counts_more_and_untouched_items_come_last(shop: Backend) -> None:
    answer = shop.post("/api/v1/recommend", {"userId": "dan", "count": 10})
    assert ids(answer) == ["soap", "salt", "tea", "rice"]  # 2, 1, 3 / (1 + 89 / 30) and 0
    assert [element["score"] for element in answer] == pytest.approx([2 / 3, 1 / 2, 0.430622, 0.0], abs=1e-4)
    assert {element["algorithm"] for element in answer} == {"popularity"}
    assert all(element["evidence"] == [] for element in answer)


def test_the_answer_is_labelled_and_names_what_it_ignored_of_the_request(shop: Backend) -> None:
    plain = shop.client.post("/api/v1/recommend", json={"userId": "dan", "count": 1})
    assert plain.headers["X-Recommendation-Degraded"] == "serving-unavailable"
    assert "X-Model-Release" not in plain.headers
    session = {"userId": "dan", "count": 1, "context": {"sessionItems": ["tea"]}, "diversity": 0.3}
    asked_for_more = shop.client.post("/api/v1/recommend", json=session)
    assert asked_for_more.headers["X-Recommendation-Degraded"] == "serving-unavailable; ignored=diversity,sessionItems"
    assert plain.headers["X-Recommendation-Id"] != asked_for_more.headers["X-Recommendation-Id"]


def test_filter_and_exclude_hold(shop: Backend) -> None:
    request = {"userId": "dan", "count": 10, "filter": {"kind": "food", "price": {"$lt": 9}}, "exclude": ["salt"]}
    assert ids(shop.post("/api/v1/recommend", request)) == ["rice"]


@pytest.mark.parametrize(
    ("exclude_seen", "expected"), [("none", ["soap", "salt", "tea"]), ("bought", ["tea"]), ("all", [])]
)
def test_exclude_seen_holds(shop: Backend, exclude_seen: str, expected: list[str]) -> None:
    shop.client.delete("/api/items/rice")
    shop.interact("eve", "soap", "salt", type_="purchase")
    shop.interact("eve", "tea", type_="view")
    request = {"userId": "eve", "count": 10, "excludeSeen": exclude_seen}
    assert sorted(map(str, ids(shop.post("/api/v1/recommend", request)))) == sorted(expected)


def test_exclude_seen_is_the_tenants_where_the_request_says_nothing(shop: Backend) -> None:
    assert ids(shop.post("/api/v1/recommend", {"userId": "ann", "count": 10})) == ["rice"]
    shop.sql("UPDATE tenants SET exclude_seen = 'none'")
    assert "soap" in ids(shop.post("/api/v1/recommend", {"userId": "ann", "count": 10}))


def test_hidden_and_deleted_items_leave_at_once(shop: Backend) -> None:
    shop.client.patch("/api/items/soap", json={"isActive": False}).raise_for_status()
    shop.client.delete("/api/items/salt").raise_for_status()
    assert ids(shop.post("/api/v1/recommend", {"userId": "dan", "count": 10})) == ["tea", "rice"]


def test_similar_falls_back_without_the_item_itself(shop: Backend) -> None:
    response = shop.client.post("/api/v1/similar", json={"itemId": "soap", "count": 2})
    assert ids(response.json()) == ["salt", "tea"]
    assert response.headers["X-Recommendation-Degraded"] == "serving-unavailable; ignored=itemId"


def test_what_is_far_down_the_list_is_found_past_a_thousand_excluded(backend: Backend) -> None:
    for start in (0, 900):
        backend.add_items({f"i{number:04}": {} for number in range(start, start + 900)})
    for start in (0, 900):
        backend.interact("all", *(f"i{number:04}" for number in range(start, start + 900)), timestamp=DAYS_AGO[1])
    request = {"userId": "x", "count": 2, "exclude": [f"i{number:04}" for number in range(1_000)]}
    assert ids(backend.post("/api/v1/recommend", request)) == ["i1000", "i1001"]


def test_a_rare_category_fills_its_list_however_unpopular_it_is(backend: Backend) -> None:
    backend.add_items({f"pop{number:03}": {"kind": "pop"} for number in range(800)})
    backend.add_items({f"rare{number}": {"kind": "rare"} for number in range(3)})
    backend.interact("all", *(f"pop{number:03}" for number in range(800)), timestamp=DAYS_AGO[1])
    backend.interact("one", "rare1", type_="view", timestamp=DAYS_AGO[90])
    request = {"userId": "x", "count": 3, "filter": {"kind": "rare"}}
    assert ids(backend.post("/api/v1/recommend", request)) == ["rare1", "rare0", "rare2"]
    similar = {"itemId": "rare0", "count": 3, "filter": {"kind": "rare"}, "exclude": ["rare2"]}
    assert ids(backend.post("/api/v1/similar", similar)) == ["rare1"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_has_the_fallback_and_its_label(shop: Backend, algorithm: str) -> None:
    request = {
        "userId": "eve",
        "count": 10,
        "algorithm": algorithm,
        "filter": {"kind": "food"},
        "exclude": ["rice"],
        "excludeSeen": "all",
        "diversity": 0.5,
        "context": {"sessionItems": ["tea"]},
    }
    response = shop.client.post("/api/v1/recommend", json=request)
    assert response.headers["X-Recommendation-Degraded"] == "serving-unavailable; ignored=diversity,sessionItems"
    assert ids(response.json()) == ["salt"]  # what the session shows is seen, here too
    assert {element["algorithm"] for element in response.json()} == {"popularity"}
