"""Recommendation records over HTTP: who sees which, and that a deleted one is gone."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.fixtures.backend import Backend
from tests.fixtures.people import person

MOMENT = datetime(2025, 1, 15, 10, 30, tzinfo=UTC)
SHOWN = {"id", "userId", "itemId", "score", "reason", "createdAt", "metadata"}


def add(backend: Backend, user: str, item: str, **columns: Any) -> str:
    """A record written as the pipeline writes one; its id."""
    backend.sql("INSERT INTO users (tenant_id, id) VALUES (%s, %s) ON CONFLICT DO NOTHING", [backend.tenant_id, user])
    record = {
        "tenant_id": backend.tenant_id,
        "id": uuid4(),
        "user_id": user,
        "item_id": item,
        "rank": 1,
        "score": 0.92,
        "algorithm": "hybrid",
        "reason": "Based on your interaction history",
        "created_at": MOMENT,
        **columns,
    }
    names, places = ", ".join(record), ", ".join(["%s"] * len(record))
    backend.sql(f"INSERT INTO recommendations ({names}) VALUES ({places})", list(record.values()))
    return str(record["id"])


def add_other_tenant(backend: Backend, tenants: Any) -> str:
    """A record of another tenant, for a user and an item of the same names; its id."""
    tenants.create("rival")
    other = Backend(backend.client, backend.url, "rival")
    other.sql("INSERT INTO items (tenant_id, id, metadata, version) VALUES ('rival', 'a', '{\"whose\": \"rival\"}', 1)")
    return add(other, "ann", "a")


@pytest.fixture
def shop(backend: Backend) -> Backend:
    backend.add_items({id_: {"title": id_.upper()} for id_ in "abc"})
    return backend


@pytest.fixture
def admin(shop: Backend) -> Any:
    return person(shop, "boss", "admin")


def listed(client: Any, **query: Any) -> list[tuple[str, str]]:
    answer = client.get("/api/recommendations", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == len(answer.json()["data"])
    return [(record["userId"], record["itemId"]) for record in answer.json()["data"]]


def test_a_record_has_the_fields_of_the_contract(shop: Backend, admin: Any) -> None:
    id_ = add(shop, "ann", "a")
    expected = {
        "id": id_,
        "userId": "ann",
        "itemId": "a",
        "score": 0.92,
        "reason": "Based on your interaction history",
        "createdAt": "2025-01-15T10:30:00Z",
        "metadata": {"title": "A"},
        "algorithm": "hybrid",
    }
    assert admin.get("/api/recommendations").json() == {"data": [expected], "total": 1, "page": 1, "pageSize": 20}
    assert admin.get(f"/api/recommendations/{id_}").json() == expected


def test_the_list_is_newest_first_and_best_first_within_a_list(shop: Backend, admin: Any) -> None:
    later = MOMENT + timedelta(days=1)
    for user, item, rank, moment in [("ann", "b", 2, MOMENT), ("bob", "c", 1, later), ("ann", "a", 1, MOMENT)]:
        add(shop, user, item, rank=rank, created_at=moment)
    assert listed(admin) == [("bob", "c"), ("ann", "a"), ("ann", "b")]


def test_the_list_is_filtered_by_user_and_by_algorithm(shop: Backend, admin: Any) -> None:
    add(shop, "ann", "a")
    add(shop, "ann", "b", rank=2, algorithm="popularity")
    add(shop, "bob", "c", algorithm="collaborative")
    assert listed(admin, userId="ann") == [("ann", "a"), ("ann", "b")]
    assert listed(admin, algorithm="collaborative") == [("bob", "c")]
    assert listed(admin, userId="ann", algorithm="popularity") == [("ann", "b")]
    assert listed(admin, userId="nobody") == []


def test_the_list_comes_in_pages(shop: Backend, admin: Any) -> None:
    for rank in range(1, 6):
        add(shop, "ann", "a", rank=rank, score=1 - rank / 10)
    pages = [admin.get("/api/recommendations", params={"page": page, "pageSize": 2}).json() for page in (1, 2, 3, 4)]
    assert [page["total"] for page in pages] == [5] * 4
    assert [[record["score"] for record in page["data"]] for page in pages] == [[0.9, 0.8], [0.7, 0.6], [0.5], []]
    assert (pages[1]["page"], pages[1]["pageSize"]) == (2, 2)


@pytest.mark.parametrize("path", ["/api/recommendations", "/api/recommendations/my"])
@pytest.mark.parametrize(
    ("query", "field"),
    [({"page": 0}, "page"), ({"page": "x"}, "page"), ({"pageSize": 0}, "pageSize"), ({"pageSize": 101}, "pageSize")],
)
def test_a_page_out_of_bounds_is_400(admin: Any, path: str, query: dict[str, Any], field: str) -> None:
    answer = admin.get(path, params=query)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("query", [{"algorithm": "magic"}, {"userId": ""}, {"userId": "x" * 257}, {"userId": "a\x01"}])
def test_a_filter_that_is_none_is_400(admin: Any, query: dict[str, str]) -> None:
    answer = admin.get("/api/recommendations", params=query)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [*query]


def test_records_of_hidden_and_deleted_items_are_in_no_answer(shop: Backend, admin: Any) -> None:
    ids = {item: add(shop, "ann", item) for item in "abc"}
    shop.client.patch("/api/items/a", json={"isActive": False}).raise_for_status()
    shop.client.delete("/api/items/b").raise_for_status()
    assert listed(admin) == [("ann", "c")]
    statuses = [admin.get(f"/api/recommendations/{ids[item]}").status_code for item in "abc"]
    assert statuses == [404, 404, 200]


def test_metadata_is_that_of_this_moment(shop: Backend, admin: Any) -> None:
    add(shop, "ann", "a")
    shop.client.patch("/api/items/a", json={"metadata": {"title": "New"}}).raise_for_status()
    assert admin.get("/api/recommendations").json()["data"][0]["metadata"] == {"title": "New"}


def test_everybody_reads_ones_own_record_and_an_administrator_anybodys(shop: Backend, admin: Any) -> None:
    own, others = add(shop, "ann", "a"), add(shop, "bob", "b")
    ann = person(shop, "ann")
    assert ann.get(f"/api/recommendations/{own}").json()["userId"] == "ann"
    forbidden = ann.get(f"/api/recommendations/{others}")
    assert (forbidden.status_code, forbidden.headers["content-type"]) == (403, "application/problem+json")
    assert admin.get(f"/api/recommendations/{others}").status_code == 200


def test_what_is_another_tenants_is_not_there(shop: Backend, admin: Any, tenants: Any) -> None:
    foreign = add_other_tenant(shop, tenants)
    own = add(shop, "ann", "a")
    assert [record["id"] for record in admin.get("/api/recommendations").json()["data"]] == [own]
    for client in (admin, person(shop, "ann")):
        assert client.get(f"/api/recommendations/{foreign}").status_code == 404
    assert admin.delete(f"/api/recommendations/{foreign}").status_code == 404
    assert shop.sql("SELECT count(*) FROM recommendations WHERE tenant_id = 'rival'") == [(1,)]


def test_a_deleted_record_is_gone(shop: Backend, admin: Any) -> None:
    id_, other = add(shop, "ann", "a"), add(shop, "ann", "b")
    answer = admin.delete(f"/api/recommendations/{id_}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert admin.get(f"/api/recommendations/{id_}").status_code == 404
    assert admin.delete(f"/api/recommendations/{id_}").status_code == 404
    assert admin.get(f"/api/recommendations/{other}").status_code == 200


def test_the_record_of_a_hidden_item_can_be_deleted(shop: Backend, admin: Any) -> None:
    id_ = add(shop, "ann", "a")
    shop.client.patch("/api/items/a", json={"isActive": False}).raise_for_status()
    assert admin.delete(f"/api/recommendations/{id_}").status_code == 204


@pytest.mark.parametrize("id_", [str(UUID(int=0)), "no-uuid", "a%2Fb", "%F0%9F%8E%A7"])
def test_an_unknown_record_is_404(admin: Any, id_: str) -> None:
    for answer in (admin.get(f"/api/recommendations/{id_}"), admin.delete(f"/api/recommendations/{id_}")):
        assert answer.status_code == 404
        assert answer.json()["status"] == 404


def test_lists_and_deletions_are_for_administrators(shop: Backend) -> None:
    id_ = add(shop, "ann", "a")
    ann = person(shop, "ann")
    assert ann.get("/api/recommendations").status_code == 403
    assert ann.delete(f"/api/recommendations/{id_}").status_code == 403
    assert shop.sql("SELECT count(*) FROM recommendations") == [(1,)]


def test_routes_for_people_are_closed_to_keys_and_to_nobody(shop: Backend) -> None:
    id_ = add(shop, "ann", "a")
    nobody = person(shop, "ann")
    del nobody.headers["Authorization"]
    for client in (nobody, shop.client):
        for method, path in [
            ("GET", "/api/recommendations"),
            ("GET", "/api/recommendations/my"),
            ("GET", f"/api/recommendations/{id_}"),
            ("DELETE", f"/api/recommendations/{id_}"),
        ]:
            answer = client.request(method, path)
            assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), path


def test_a_deleted_user_takes_the_records_along(shop: Backend, admin: Any) -> None:
    add(shop, "ann", "a")
    add(shop, "bob", "b")
    shop.sql("DELETE FROM users WHERE tenant_id = 'shop' AND id = 'ann'")
    assert listed(admin) == [("bob", "b")]
