"""`/api/users`: portal users and end users of one tenant, and who may see and change them."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.fixtures.portal import PASSWORD, Portal

FIELDS = {"id", "email", "name", "role", "isActive", "createdAt", "lastActiveAt"}
JOHN = {"email": "user@example.com", "name": "John Doe", "role": "user", "isActive": True}


def make(portal: Portal, admin: dict[str, str], status: int = 201, **body: Any) -> Any:
    answer = portal.client.post("/api/users", json=body, headers=admin)
    assert answer.status_code == status, answer.text
    return answer.json()


def interact(portal: Portal, tenant_id: str, user: str, *items: str, **more: Any) -> None:
    key = portal.tenants.key(tenant_id)
    for item in items:
        body = {"userId": user, "itemId": item, "interactionType": "like", "createItem": True, **more}
        assert portal.client.post("/api/v1/interactions", json=body, headers=key).status_code == 201


def test_a_created_user_has_the_fields_of_the_contract_and_comes_back(portal: Portal) -> None:
    admin = portal.admin()
    made = make(portal, admin, **JOHN)
    assert made.keys() == FIELDS
    assert {name: made[name] for name in JOHN} == JOHN
    assert made["lastActiveAt"] is None
    assert made["createdAt"].endswith("Z")
    assert portal.client.get(f"/api/users/{made['id']}", headers=admin).json() == made
    # Without a password nobody logs in.
    assert portal.client.post("/api/auth/login", json={"email": JOHN["email"], "password": ""}).status_code == 401


def test_an_end_user_keeps_the_id_that_a_backend_knows(portal: Portal) -> None:
    admin = portal.admin()
    made = make(portal, admin, id="shopper 7", name="Sho")
    assert (made["id"], made["email"], made["role"], made["isActive"]) == ("shopper 7", None, "user", True)
    make(portal, admin, status=409, id="shopper 7", email="another@example.com")
    assert make(portal, portal.admin("other"), id="shopper 7")["id"] == "shopper 7"


def test_only_interactions_and_this_route_make_end_users(portal: Portal) -> None:
    admin = portal.admin()
    interact(portal, "acme", "by-interaction", "i1")
    key = portal.tenants.key("acme")
    asked = portal.client.post("/api/v1/recommend", json={"userId": "asked-for", "count": 3}, headers=key)
    assert asked.status_code == 200
    codes = [
        portal.client.get(f"/api/users/{id_}", headers=admin).status_code for id_ in ("by-interaction", "asked-for")
    ]
    assert codes == [200, 404]


def test_last_active_follows_interactions_and_logins(portal: Portal) -> None:
    admin = portal.admin()
    interact(portal, "acme", "u", "i1", timestamp="2025-01-15T10:00:00Z")
    assert portal.client.get("/api/users/u", headers=admin).json()["lastActiveAt"] == "2025-01-15T10:00:00Z"
    interact(portal, "acme", "u", "i1", timestamp="2024-01-15T10:00:00Z")
    assert portal.client.get("/api/users/u", headers=admin).json()["lastActiveAt"] == "2025-01-15T10:00:00Z"
    bo = portal.person("bo@acme.example")
    assert portal.client.get(f"/api/users/{bo}", headers=admin).json()["lastActiveAt"] is None
    portal.login("bo@acme.example")
    first = portal.client.get(f"/api/users/{bo}", headers=admin).json()["lastActiveAt"]
    portal.client.post("/api/auth/login", json={"email": "bo@acme.example", "password": PASSWORD})
    assert portal.client.get(f"/api/users/{bo}", headers=admin).json()["lastActiveAt"] > first


def test_the_list_is_paged_and_searched_within_the_tenant(portal: Portal) -> None:
    admin, other = portal.admin("acme"), portal.admin("other")
    for number in range(5):
        make(portal, admin, id=f"u{number}", email=f"Shopper{number}@Example.com", name=f"100%_{number}")
    make(portal, other, id="u0", name="of the other")
    pages = [
        portal.client.get("/api/users", params={"page": page, "pageSize": 2}, headers=admin).json()
        for page in (1, 2, 3, 4)
    ]
    assert [len(page["data"]) for page in pages] == [2, 2, 2, 0]
    assert {(page["total"], page["pageSize"]) for page in pages} == {(6, 2)}
    ids = [user["id"] for page in pages for user in page["data"]]
    assert ids == sorted(ids)
    assert len(set(ids)) == 6
    assert pages[0]["data"][0].keys() == FIELDS

    def found(search: str) -> list[str]:
        answer = portal.client.get("/api/users", params={"search": search}, headers=admin).json()
        assert answer["total"] == len(answer["data"])
        return [user["id"] for user in answer["data"]]

    assert found("shopper3@") == found("U3") == found("_3") == ["u3"]
    assert found("100%") == ["u0", "u1", "u2", "u3", "u4"]
    assert found("of the other") == found("1%0") == []
    for bad in ({"page": 0}, {"pageSize": 101}, {"pageSize": "x"}, {"search": "a\0"}):
        assert portal.client.get("/api/users", params=bad, headers=admin).status_code == 400


def test_an_update_changes_what_was_sent_and_keeps_the_rest(portal: Portal) -> None:
    admin = portal.admin()
    id_ = make(portal, admin, **JOHN)["id"]
    put = portal.client.put(f"/api/users/{id_}", json={**JOHN, "name": "Jo", "isActive": False}, headers=admin)
    assert (put.status_code, put.json()["name"], put.json()["isActive"]) == (200, "Jo", False)
    put = portal.client.put(f"/api/users/{id_}", json={"role": "admin"}, headers=admin).json()
    assert (put["name"], put["isActive"], put["role"], put["email"]) == ("Jo", False, "admin", JOHN["email"])
    assert portal.client.get(f"/api/users/{id_}", headers=admin).json() == put
    put = portal.client.put(f"/api/users/{id_}", json={"name": None, "email": None}, headers=admin).json()
    assert (put["name"], put["email"]) == (None, None)


def test_a_password_lets_a_user_in_and_can_be_changed(portal: Portal) -> None:
    admin = portal.admin()
    id_ = make(portal, admin, **JOHN, password="the first password")["id"]
    portal.login("USER@example.com", "the first password")
    changed = portal.client.put(f"/api/users/{id_}", json={"password": "the second password"}, headers=admin)
    assert "password" not in changed.text.lower()
    codes = [
        portal.client.post("/api/auth/login", json={"email": JOHN["email"], "password": f"the {word} password"})
        for word in ("first", "second")
    ]
    assert [answer.status_code for answer in codes] == [401, 200]
    # An address of one who logs in cannot go.
    assert portal.client.put(f"/api/users/{id_}", json={"email": None}, headers=admin).status_code == 400
    end_user = make(portal, admin, id="end")["id"]
    assert portal.client.put(f"/api/users/{end_user}", json={"password": PASSWORD}, headers=admin).status_code == 400
    hashes = portal.sql("SELECT password_hash FROM users WHERE id = %s", id_)
    assert hashes[0][0].startswith("$argon2id$")


def test_an_address_that_logs_in_is_unique_across_tenants_and_a_clash_says_nothing(portal: Portal) -> None:
    admin, other = portal.admin("acme"), portal.admin("other")
    make(portal, admin, email="Jane@Example.com", password=PASSWORD)
    clashes = [make(portal, who, status=409, email="jane@example.COM", password=PASSWORD) for who in (admin, other)]
    # Without a password it is a name like any other, until it is to log in.
    namesake = make(portal, other, email="jane@example.com")["id"]
    taken = portal.client.put(f"/api/users/{namesake}", json={"password": PASSWORD}, headers=other)
    bo = make(portal, other, email="bo@example.com", password=PASSWORD)["id"]
    moved = portal.client.put(f"/api/users/{bo}", json={"email": "JANE@example.com"}, headers=other)
    assert [answer.status_code for answer in (taken, moved)] == [409, 409]
    assert {problem["detail"] for problem in (*clashes, taken.json(), moved.json())} == {"This address cannot be used"}
    assert portal.client.get(f"/api/users/{bo}", headers=other).json()["email"] == "bo@example.com"


def test_toggling_switches_off_and_on(portal: Portal) -> None:
    admin = portal.admin()
    id_ = make(portal, admin, **JOHN)["id"]
    seen = [portal.client.patch(f"/api/users/{id_}/toggle-status", headers=admin) for _ in range(2)]
    assert [(answer.status_code, answer.json()["isActive"]) for answer in seen] == [(200, False), (200, True)]
    assert seen[0].json().keys() == FIELDS


def test_a_deleted_user_is_gone_and_cannot_log_in(portal: Portal) -> None:
    admin = portal.admin()
    id_ = make(portal, admin, **JOHN, password=PASSWORD)["id"]
    assert portal.client.delete(f"/api/users/{id_}", headers=admin).status_code == 204
    answers = [
        portal.client.get(f"/api/users/{id_}", headers=admin),
        portal.client.put(f"/api/users/{id_}", json={}, headers=admin),
        portal.client.delete(f"/api/users/{id_}", headers=admin),
        portal.client.patch(f"/api/users/{id_}/toggle-status", headers=admin),
        portal.client.get(f"/api/users/{id_}/interactions", headers=admin),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    wrong = portal.client.post("/api/auth/login", json={"email": JOHN["email"], "password": PASSWORD})
    assert wrong.status_code == 401
    make(portal, admin, **JOHN, password=PASSWORD)  # the address is free again


@pytest.mark.parametrize("id_", ["a/b", "ä ö", "a?b#c", "100%", "日本", "🦊/🐢", "..", "x" * 256, "interactions"])
def test_any_legal_id_works_in_a_path(portal: Portal, id_: str) -> None:
    admin = portal.admin()
    make(portal, admin, id=id_)
    path = f"/api/users/{quote(id_, safe='')}" if id_ != ".." else "/api/users/%2E%2E"
    assert portal.client.get(path, headers=admin).json()["id"] == id_
    assert portal.client.get(f"{path}/interactions", headers=admin).json()["total"] == 0
    assert portal.client.patch(f"{path}/toggle-status", headers=admin).json()["isActive"] is False
    assert portal.client.put(path, json={"name": "n"}, headers=admin).json()["name"] == "n"
    assert portal.client.delete(path, headers=admin).status_code == 204


def test_interactions_of_a_user_are_listed_newest_first(portal: Portal) -> None:
    admin = portal.admin()
    for day, item in ((1, "a"), (3, "c"), (2, "b")):
        interact(portal, "acme", "u", item, timestamp=f"2025-01-0{day}T00:00:00Z", value=0.1 * day)
    interact(portal, "acme", "someone else", "a")
    portal.admin("other")
    interact(portal, "other", "u", "a")
    page = portal.client.get("/api/users/u/interactions", params={"pageSize": 2}, headers=admin).json()
    assert (page["total"], page["page"], page["pageSize"]) == (3, 1, 2)
    assert [row["itemId"] for row in page["data"]] == ["c", "b"]
    assert page["data"][0].keys() == {
        *("interactionId", "userId", "itemId", "interactionType", "value", "timestamp", "recommendationId")
    }
    assert (page["data"][0]["userId"], page["data"][0]["interactionType"]) == ("u", "like")
    assert page["data"][0]["value"] == pytest.approx(0.3)
    assert page["data"][0]["timestamp"] == "2025-01-03T00:00:00Z"
    second = portal.client.get("/api/users/u/interactions", params={"page": 2, "pageSize": 2}, headers=admin).json()
    assert [row["itemId"] for row in second["data"]] == ["a"]


def test_who_is_no_administrator_reads_itself_and_changes_nobody(portal: Portal) -> None:
    admin = portal.admin()
    own = portal.person("bo@acme.example")
    foreign = portal.person("eve@other.example", tenant_id="other")
    colleague = portal.person("cy@acme.example")
    user = portal.login("bo@acme.example")
    assert portal.client.get(f"/api/users/{own}", headers=user).json()["id"] == own
    seen = [portal.client.get(f"/api/users/{id_}", headers=user) for id_ in (colleague, foreign, "nobody")]
    assert [answer.status_code for answer in seen] == [403, 404, 404]
    requests = [
        ("GET", "/api/users", None),
        ("POST", "/api/users", JOHN),
        ("PUT", f"/api/users/{own}", {"role": "admin"}),
        ("DELETE", f"/api/users/{own}", None),
        ("PATCH", f"/api/users/{own}/toggle-status", None),
        ("GET", f"/api/users/{own}/interactions", None),
    ]
    key = portal.tenants.key("acme")
    for method, path, body in requests:
        answers = [portal.client.request(method, path, json=body, headers=who) for who in (user, key, {})]
        assert [answer.status_code for answer in answers] == [403, 401, 401], (method, path)
    assert portal.client.get(f"/api/users/{own}", headers=admin).json()["role"] == "user"


def test_another_tenants_users_are_not_there_though_their_ids_are_the_same(portal: Portal) -> None:
    admin, other = portal.admin("acme"), portal.admin("other")
    make(portal, admin, id="same", name="of acme")
    make(portal, admin, id="only acme's")
    make(portal, other, id="same", name="of the other")
    assert portal.client.get("/api/users/same", headers=other).json()["name"] == "of the other"
    assert portal.client.put("/api/users/same", json={"name": "changed"}, headers=other).status_code == 200
    assert portal.client.patch("/api/users/same/toggle-status", headers=other).status_code == 200
    assert portal.client.delete("/api/users/same", headers=other).status_code == 204
    kept = portal.client.get("/api/users/same", headers=admin).json()
    assert (kept["name"], kept["isActive"]) == ("of acme", True)
    path = f"/api/users/{quote(chr(111) + 'nly acme' + chr(39) + 's')}"
    answers = [
        portal.client.get(path, headers=other),
        portal.client.put(path, json={}, headers=other),
        portal.client.patch(f"{path}/toggle-status", headers=other),
        portal.client.delete(path, headers=other),
        portal.client.get(f"{path}/interactions", headers=other),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"name": "nobody"}, ""),
        ({"id": "x", "password": PASSWORD}, ""),
        ({"email": "no address"}, "email"),
        ({"email": "a@b@c"}, "email"),
        ({"email": "a\0@b.example"}, "email"),
        ({"email": 7}, "email"),
        ({**JOHN, "role": "owner"}, "role"),
        ({**JOHN, "isActive": "yes"}, "isActive"),
        ({**JOHN, "password": "short"}, "password"),
        ({**JOHN, "password": "x" * 257}, "password"),
        ({**JOHN, "id": ""}, "id"),
        ({**JOHN, "id": "a\u0007"}, "id"),
        ({**JOHN, "id": "x" * 257}, "id"),
    ],
)
def test_users_of_no_sense_are_400(portal: Portal, body: Any, field: str) -> None:
    problem = make(portal, portal.admin(), status=400, **body)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert portal.sql("SELECT count(*) FROM users") == [(1,)]
