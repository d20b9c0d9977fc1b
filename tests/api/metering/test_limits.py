"""Limits on items and users: 402 beyond them, for new ones only, also when many requests come at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fixtures.backend import Backend
from tests.fixtures.people import person
from tests.fixtures.usage import LIKE, on_plan, units_of

ITEM = {"metadata": {}}


@pytest.fixture
def shop(open_client: Any, tenants: Any) -> Iterator[Backend]:
    """On the plan `free`: 100 items, of which there is one, and 100 users, of whom there are none."""
    with on_plan(open_client, tenants, "free") as backend:
        yield backend


def add_users(shop: Backend, count: int) -> None:
    shop.sql("INSERT INTO users (tenant_id, id) SELECT 'shop', 'user-' || n FROM generate_series(1, %s) AS n", [count])


def add_items(shop: Backend, count: int) -> None:
    shop.add_items({f"item-{n}": {} for n in range(count)})


def end_users(shop: Backend) -> int:
    return int(shop.sql("SELECT count(*) FROM users WHERE password_hash IS NULL")[0][0])


def items(shop: Backend) -> int:
    return int(shop.client.get("/api/items").json()["total"])


def statuses(answer: Any) -> list[int]:
    return [result["status"] for result in answer["results"]]


def test_the_last_item_is_taken_and_the_next_is_not(shop: Backend) -> None:
    add_items(shop, 98)
    shop.post("/api/items", {"id": "last", **ITEM}, 201)
    body = shop.post("/api/items", {"id": "one too many", **ITEM}, 402)
    assert body["detail"] == (
        "The plan Free takes 100 items: choose a larger plan (POST /api/billing/checkout or /api/billing/portal), "
        "or delete items"
    )
    assert items(shop) == 100
    shop.post("/api/items", {"id": "last", **ITEM}, 409)  # what is there is taken, not too many
    assert shop.client.put("/api/items/last", json=ITEM).status_code == 200
    assert shop.client.delete("/api/items/last").status_code == 204
    shop.post("/api/items", {"id": "one too many", **ITEM}, 201)


def test_rows_of_a_batch_past_the_limit_are_402_and_the_others_are_added(shop: Backend) -> None:
    add_items(shop, 97)
    rows = [{"id": "a", **ITEM}, {"id": "tea", **ITEM}, {"metadata": 7}, {"id": "b", **ITEM}, {"id": "c", **ITEM}, ITEM]
    answer = shop.post("/api/items/batch", {"items": rows})
    assert statuses(answer) == [201, 409, 400, 201, 402, 402]
    assert "takes 100 items" in answer["results"][4]["error"]
    assert items(shop) == 100


def test_a_batch_for_which_there_is_no_room_at_all_is_402_row_by_row(shop: Backend) -> None:
    add_items(shop, 99)
    rows = [{"id": "a", **ITEM}, {"id": "b", **ITEM}]
    assert statuses(shop.post("/api/items/batch", {"items": rows})) == [402, 402]
    assert items(shop) == 100


def test_items_that_interactions_make_are_items(shop: Backend) -> None:
    add_items(shop, 98)
    rows = [{**LIKE, "itemId": id_, "createItem": True} for id_ in ("b", "a", "tea", "a")]
    answer = shop.post("/api/v1/interactions/batch", rows)
    assert statuses(answer) == [402, 201, 201, 201]
    shop.post("/api/v1/interactions", {**LIKE, "itemId": "c", "createItem": True}, 402)
    shop.post("/api/v1/interactions", {**LIKE, "itemId": "a", "createItem": True}, 201)
    assert items(shop) == 100
    assert units_of(shop) == 4


def test_writers_of_items_at_once_do_not_pass_the_limit_together(shop: Backend) -> None:
    add_items(shop, 94)

    def post(n: int) -> int:
        if n % 2:
            return shop.client.post("/api/items", json={"id": f"new-{n}", **ITEM}).status_code
        body = {**LIKE, "itemId": f"new-{n}", "createItem": True}
        return shop.client.post("/api/v1/interactions", json=body).status_code

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(post, range(16)))
    assert (answers.count(201), answers.count(402)) == (5, 11)
    assert items(shop) == 100


def test_an_interaction_of_a_new_user_past_the_limit_is_402_and_known_users_go_on(shop: Backend) -> None:
    add_users(shop, 99)
    shop.post("/api/v1/interactions", LIKE, 201)
    body = shop.post("/api/v1/interactions", {**LIKE, "userId": "bob"}, 402)
    assert body["detail"] == (
        "The plan Free takes 100 users, and this one would be new: choose a larger plan (POST /api/billing/checkout or "
        "/api/billing/portal), or delete users"
    )
    for known in ("ann", "user-1"):
        shop.post("/api/v1/interactions", {**LIKE, "userId": known}, 201)
    shop.post("/api/v1/interactions", {**LIKE, "userId": "bob", "itemId": "nothing"}, 404)
    assert (end_users(shop), units_of(shop)) == (100, 3)
    assert person(shop, "boss", "admin").delete("/api/users/user-1").status_code == 204
    shop.post("/api/v1/interactions", {**LIKE, "userId": "bob"}, 201)


def test_rows_of_new_users_past_the_limit_are_402_in_the_order_of_the_batch(shop: Backend) -> None:
    add_users(shop, 98)
    rows = [
        {**LIKE, "userId": "nobody", "itemId": "nothing"},  # comes not to be, and takes no place
        {**LIKE, "userId": "zoe"},
        {**LIKE, "userId": "user-1"},
        {**LIKE, "userId": "ann"},
        {**LIKE, "userId": "bob"},
        {**LIKE, "userId": "zoe"},
        {**LIKE, "userId": "bob", "itemId": "made", "createItem": True},
    ]
    answer = shop.post("/api/v1/interactions/batch", rows)
    assert statuses(answer) == [404, 201, 201, 201, 402, 201, 402]
    assert shop.sql("SELECT id FROM users WHERE id IN ('ann', 'bob', 'nobody', 'zoe') ORDER BY id") == [
        ("ann",),
        ("zoe",),
    ]
    assert items(shop) == 1  # nothing is made for who is refused
    assert units_of(shop) == 4


def test_new_users_at_once_do_not_exceed_the_limit_together(shop: Backend) -> None:
    add_users(shop, 95)

    def post(n: int) -> int:
        body = {**LIKE, "userId": f"new-{n}"}
        if n % 2:
            return shop.client.post("/api/v1/interactions", json=body).status_code
        return int(shop.client.post("/api/v1/interactions/batch", json=[body]).json()["results"][0]["status"])

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(post, range(16)))
    assert (answers.count(201), answers.count(402)) == (5, 11)
    assert end_users(shop) == 100


def test_who_logs_in_is_not_one_of_the_plans_users(shop: Backend) -> None:
    add_users(shop, 99)
    boss = person(shop, "boss", "admin")
    shop.sql("INSERT INTO users (tenant_id, id, role_issued_at) VALUES ('shop', 'from elsewhere', now())")
    used = boss.get("/api/billing/usage").json()
    assert (used["usersUsed"], used["usersLimit"]) == (99, 100)
    shop.post("/api/v1/interactions", LIKE, 201)
    login = {"email": "new@shop.example", "password": "a password of the tests"}
    assert boss.post("/api/users", json=login).status_code == 201
    assert boss.post("/api/users", json={"id": "bob"}).status_code == 402
    assert boss.get("/api/billing/usage").json()["usersUsed"] == 100


def add_portal_users(shop: Backend, *ids: str) -> None:
    for id_ in ids:
        shop.sql("INSERT INTO users (tenant_id, id, password_hash) VALUES ('shop', %s, 'x')", [id_])


def test_a_portal_user_is_one_of_the_plans_users_once_it_interacts(shop: Backend) -> None:
    add_users(shop, 98)
    add_portal_users(shop, "anna", "berta", "carla")
    boss = person(shop, "boss", "admin")

    def used() -> int:
        return int(boss.get("/api/billing/usage").json()["usersUsed"])

    assert used() == 98
    for statuses_, user in ((201, "anna"), (201, "berta"), (402, "carla"), (201, "anna")):
        shop.post("/api/v1/interactions", {**LIKE, "userId": user}, statuses_)
    answer = shop.post("/api/v1/interactions/batch", [{**LIKE, "userId": user} for user in ("carla", "anna", "dora")])
    assert statuses(answer) == [402, 201, 402]
    assert used() == 100
    assert shop.sql("SELECT DISTINCT user_id FROM interactions ORDER BY 1") == [("anna",), ("berta",)]


def test_a_password_does_not_take_a_user_out_of_the_count(shop: Backend) -> None:
    """Whoever has interacted is given a login, one after the other: there is still room for as many as before."""
    boss = person(shop, "boss", "admin")
    add_users(shop, 99)
    shop.post("/api/v1/interactions", LIKE, 201)
    login = {"email": "ann@shop.example", "password": "a password of the tests"}
    assert boss.put("/api/users/ann", json=login).status_code == 200
    shop.post("/api/v1/interactions", {**LIKE, "userId": "bob"}, 402)
    assert boss.get("/api/billing/usage").json()["usersUsed"] == 100


def test_portal_users_who_interact_at_once_do_not_pass_the_limit_together(shop: Backend) -> None:
    add_users(shop, 95)
    add_portal_users(shop, *[f"new-{n}" for n in range(16)])

    def post(n: int) -> int:
        body = {**LIKE, "userId": f"new-{n}"}
        return shop.client.post("/api/v1/interactions", json=body).status_code

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(post, range(16)))
    assert (answers.count(201), answers.count(402)) == (5, 11)


def test_a_user_of_a_mutation_is_refused_too(shop: Backend) -> None:
    add_users(shop, 100)
    record = '{user}: recordInteraction(userId: "{user}", itemId: "tea", interactionType: "view") {{ success }}'
    document = " ".join(record.format(user=user) for user in ("user_1", "bob"))
    shop.sql("UPDATE users SET id = 'user_1' WHERE id = 'user-1'")
    body = shop.post("/graphql", {"query": f"mutation {{ {document} }}"})
    assert body["data"] == {"user_1": {"success": True}, "bob": None}
    assert [error["extensions"]["status"] for error in body["errors"]] == [402]
    assert units_of(shop) == 1
