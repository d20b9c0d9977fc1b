"""Interactions over HTTP, on a real PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.fixtures.backend import Backend

LIKE = {"userId": "ann", "itemId": "tea", "interactionType": "like"}


@pytest.fixture
def shop(backend: Backend) -> Backend:
    backend.add_items({"tea": {}, "salt": {}})
    return backend


def test_an_acknowledged_interaction_is_stored_as_it_was_said(shop: Backend) -> None:
    recommendation = uuid4()
    body = {**LIKE, "value": 0.5, "timestamp": "2025-01-15T12:30:00.25+02:00", "recommendationId": str(recommendation)}
    answer = shop.post("/api/v1/interactions", body, status=201)
    assert answer.keys() == {"success", "interactionId", "timestamp"}
    assert (answer["success"], answer["timestamp"]) == (True, "2025-01-15T10:30:00.250000Z")
    assert shop.sql("SELECT id, user_id, item_id, interaction_type, value, recommendation_id FROM interactions") == [
        (UUID(answer["interactionId"]), "ann", "tea", "like", 0.5, recommendation)
    ]


def test_the_time_is_now_where_none_is_sent(shop: Backend) -> None:
    answer = shop.post("/api/v1/interactions", LIKE, status=201)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(answer["timestamp"])) < timedelta(seconds=30)
    assert shop.sql("SELECT value FROM interactions") == [(None,)]


def test_a_weight_of_nearly_nothing_is_none(shop: Backend) -> None:
    shop.post("/api/v1/interactions", {**LIKE, "value": 1e-320}, 201)
    assert shop.sql("SELECT value FROM interactions") == [(0.0,)]


def test_the_same_said_twice_is_two_interactions(shop: Backend) -> None:
    ids = {shop.post("/api/v1/interactions", LIKE, status=201)["interactionId"] for _ in range(2)}
    assert len(ids) == 2 == shop.sql("SELECT count(*) FROM interactions")[0][0]


def test_a_user_appears_with_its_first_interaction_and_its_activity_follows(shop: Backend) -> None:
    for timestamp in ("2025-01-02T00:00:00Z", "2025-01-03T00:00:00Z", "2025-01-01T00:00:00Z"):
        shop.post("/api/v1/interactions", {**LIKE, "timestamp": timestamp}, status=201)
    assert shop.sql("SELECT id, role, email, last_active_at FROM users WHERE tenant_id = 'shop'") == [
        ("ann", "user", None, datetime(2025, 1, 3, tzinfo=UTC))
    ]


def test_a_recommendation_makes_no_user(shop: Backend) -> None:
    shop.post("/api/v1/recommend", {"userId": "ghost", "count": 1})
    assert shop.sql("SELECT count(*) FROM users") == [(0,)]


def test_an_unknown_item_is_404_and_leaves_nothing_behind(shop: Backend) -> None:
    shop.client.delete("/api/items/salt")
    for item in ("nothing", "salt"):
        problem = shop.post("/api/v1/interactions", {**LIKE, "itemId": item}, status=404)
        assert "createItem" in problem["detail"]
    assert shop.sql("SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM interactions)") == [(0, 0)]


def test_an_unknown_item_is_made_where_the_caller_says_so(shop: Backend) -> None:
    (before,) = shop.sql("SELECT version FROM catalogues")
    shop.post("/api/v1/interactions", {**LIKE, "itemId": "new", "createItem": True}, status=201)
    shop.post("/api/v1/interactions", {**LIKE, "itemId": "new", "createItem": True}, status=201)
    item = shop.client.get("/api/items/new").json()
    assert (item["metadata"], item["isActive"]) == ({}, True)
    assert shop.sql("SELECT version FROM catalogues") == [(before[0] + 1,)]
    assert shop.sql("SELECT count(*) FROM interactions") == [(2,)]


def test_an_interaction_with_a_hidden_item_is_taken(shop: Backend) -> None:
    shop.client.patch("/api/items/tea", json={"isActive": False})
    shop.post("/api/v1/interactions", LIKE, status=201)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"userId": ""}, "userId"),
        ({"userId": "x" * 300}, "userId"),
        ({"userId": "a\tb"}, "userId"),
        ({"userId": 7}, "userId"),
        ({"itemId": None}, "itemId"),
        ({"interactionType": "buy"}, "interactionType"),
        ({"value": 1.01}, "value"),
        ({"value": -0.01}, "value"),
        ({"value": "1"}, "value"),
        ({"timestamp": "2025-01-15T10:30:00"}, "timestamp"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "1969-12-31T23:59:59Z"}, "timestamp"),
        ({"recommendationId": "x"}, "recommendationId"),
        ({"createItem": "yes"}, "createItem"),
    ],
)
def test_a_bad_interaction_is_400_and_names_the_field(shop: Backend, change: dict[str, Any], field: str) -> None:
    problem = shop.post("/api/v1/interactions", {**LIKE, **change}, status=400)
    assert [error["field"] for error in problem["errors"]] == [field]


def test_the_future_begins_in_five_minutes(shop: Backend) -> None:
    soon, later = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (4, 6))
    shop.post("/api/v1/interactions", {**LIKE, "timestamp": soon.isoformat()}, status=201)
    shop.post("/api/v1/interactions", {**LIKE, "timestamp": later.isoformat()}, status=400)


def test_a_batch_answers_for_every_row_and_loses_no_good_one(shop: Backend) -> None:
    rows: list[Any] = [
        LIKE,
        {**LIKE, "itemId": "nothing"},
        {**LIKE, "value": 7},
        {**LIKE, "itemId": "made", "createItem": True},
        {**LIKE, "itemId": "made"},
        LIKE,
        None,
    ]
    answer = shop.post("/api/v1/interactions/batch", {"interactions": rows})
    assert [result["status"] for result in answer["results"]] == [201, 404, 400, 201, 201, 201, 400]
    assert (answer["succeeded"], answer["failed"]) == (4, 3)
    stored = {str(row[0]) for row in shop.sql("SELECT id FROM interactions")}
    assert stored == {result["id"] for result in answer["results"] if result["status"] == 201}
    shop.post("/api/v1/interactions/batch", {"interactions": []}, status=400)
    shop.post("/api/v1/interactions/batch", {"interactions": [LIKE] * 1001}, status=400)


def test_batches_at_once_over_the_same_users_all_end(shop: Backend) -> None:
    users = [f"u{number}" for number in range(100)]

    def send(turn: int) -> int:
        order = users if turn % 2 else users[::-1]
        rows = [{**LIKE, "userId": user} for user in order]
        return shop.post("/api/v1/interactions/batch", {"interactions": rows})["succeeded"]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(send, range(16))) == [100] * 16
    assert shop.sql("SELECT count(*), count(DISTINCT user_id) FROM interactions") == [(1600, 100)]


def test_one_item_made_by_many_at_once_is_made_once(shop: Backend) -> None:
    def send(turn: int) -> int:
        body = {**LIKE, "userId": f"u{turn}", "itemId": "new", "createItem": True}
        return shop.client.post("/api/v1/interactions", json=body).status_code

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(send, range(16))) == [201] * 16
    assert shop.sql("SELECT count(*) FROM items WHERE id = 'new'") == [(1,)]
    assert shop.sql("SELECT count(*) FROM interactions") == [(16,)]
