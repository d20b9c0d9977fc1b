"""`/api/keys`: created by administrators, shown once, limited over HTTP, and refused soon after they are revoked."""

from typing import Any
from uuid import uuid4

import pytest

from api.database.scope import TenantScope
from api.keys.service import create_key
from configs.api import LimitSettings
from tests.fixtures.clock import stop_the_minute
from tests.fixtures.portal import Portal, running_portal, within_5_seconds

FIELDS = {"id", "name", "scopes", "rateLimit", "prefix", "createdAt", "lastUsedAt", "revokedAt"}


def make(portal: Portal, admin: dict[str, str], status: int = 201, **body: Any) -> Any:
    answer = portal.client.post("/api/keys", json={"name": "shop", **body}, headers=admin)
    assert answer.status_code == status, answer.text
    return answer.json()


def opens(portal: Portal, key: str) -> Any:
    return portal.client.get("/api/items", headers={"X-API-Key": key})


def test_a_key_is_shown_when_it_is_made_and_never_again(portal: Portal) -> None:
    admin = portal.admin()
    made = make(portal, admin)
    assert made.keys() == FIELDS | {"key"}
    assert (made["scopes"], made["rateLimit"], made["lastUsedAt"], made["revokedAt"]) == (
        ["read", "write"],
        None,
        None,
        None,
    )
    assert made["key"].startswith(made["prefix"])
    assert len(made["prefix"]) < 12
    assert made["createdAt"].endswith("Z")
    assert opens(portal, made["key"]).status_code == 200
    listed = portal.client.get("/api/keys", headers=admin).json()
    assert listed == {"data": [{name: made[name] for name in FIELDS}], "total": 1, "page": 1, "pageSize": 20}
    assert portal.sql("SELECT count(*) FROM api_keys WHERE api_keys::text LIKE %s", f"%{made['key']}%") == [(0,)]


def test_scopes_are_those_that_were_asked_for(portal: Portal) -> None:
    admin = portal.admin()
    reader = make(portal, admin, scopes=["read"])
    header = {"X-API-Key": reader["key"]}
    assert portal.client.get("/api/items", headers=header).status_code == 200
    assert portal.client.post("/api/items", json={"metadata": {}}, headers=header).status_code == 403


def test_keys_are_for_administrators(portal: Portal) -> None:
    portal.person("bo@acme.example")
    user = portal.login("bo@acme.example")
    key = portal.tenants.key("acme")
    routes = [("GET", "/api/keys"), ("POST", "/api/keys"), ("DELETE", f"/api/keys/{uuid4()}")]
    for method, path in [*routes, ("POST", f"/api/keys/{uuid4()}/rotate")]:
        answers = [
            portal.client.request(method, path, json={"name": "n"} if path == "/api/keys" else None, headers=headers)
            for headers in (user, key, {})
        ]
        assert [answer.status_code for answer in answers] == [403, 401, 401], (method, path)
        assert answers[2].headers["www-authenticate"] == "Bearer"


def test_a_tenant_has_at_most_20_live_keys(portal: Portal) -> None:
    admin = portal.admin()
    keys = [make(portal, admin) for _ in range(20)]
    make(portal, admin, status=409)
    assert portal.client.post(f"/api/keys/{keys[0]['id']}/rotate", headers=admin).status_code == 200
    assert portal.client.delete(f"/api/keys/{keys[0]['id']}", headers=admin).status_code == 204
    make(portal, admin)
    listed = portal.client.get("/api/keys", params={"pageSize": 100}, headers=admin).json()
    assert listed["total"] == 21
    assert [key["revokedAt"] is None for key in listed["data"]] == [True] * 20 + [False]
    assert portal.client.get("/api/keys", params={"page": 5, "pageSize": 5}, headers=admin).json()["data"] == [
        listed["data"][20]
    ]


def test_a_limit_can_be_lowered_over_http_and_raised_by_the_command_line_alone(
    open_client: Any, tenants: Any, monkeypatch: Any
) -> None:
    stop_the_minute(monkeypatch)
    with running_portal(open_client, tenants, "acme", limits=LimitSettings(per_key=50)) as portal:
        admin = portal.admin()
        low = make(portal, admin, rateLimit=2)
        assert low["rateLimit"] == 2
        assert [opens(portal, low["key"]).status_code for _ in range(3)] == [200, 200, 429]
        assert make(portal, admin, rateLimit=50)["rateLimit"] == 50
        for raised in (51, 0, -1, 2.5, "5", True, 10**30):
            problem = make(portal, admin, status=400, rateLimit=raised)
            assert problem["errors"][0]["field"] == "rateLimit"
        row, key = tenants.run(lambda session: create_key(session, TenantScope("acme"), "bulk", rate_limit=500))
        assert opens(portal, key).headers["x-ratelimit-limit"] == "500"
        rotated = portal.client.post(f"/api/keys/{row.id}/rotate", headers=admin).json()
        assert opens(portal, rotated["key"]).headers["x-ratelimit-limit"] == "500"


def test_a_rotated_key_keeps_all_but_its_secret_and_the_old_one_dies_within_5_seconds(portal: Portal) -> None:
    admin = portal.admin()
    old = make(portal, admin, scopes=["read"], rateLimit=300)
    assert opens(portal, old["key"]).status_code == 200
    answer = portal.client.post(f"/api/keys/{old['id']}/rotate", headers=admin)
    new = answer.json()
    assert answer.status_code == 200
    assert new.keys() == old.keys()
    changed = {name for name in new if new[name] != old[name]}
    assert changed == {"key", "prefix"}
    assert opens(portal, new["key"]).status_code == 200
    within_5_seconds(401, lambda: opens(portal, old["key"]))
    assert opens(portal, new["key"]).status_code == 200


def test_a_revoked_key_dies_within_5_seconds_and_stays_listed(portal: Portal) -> None:
    admin = portal.admin()
    key = make(portal, admin)
    assert opens(portal, key["key"]).status_code == 200
    assert portal.client.delete(f"/api/keys/{key['id']}", headers=admin).status_code == 204
    within_5_seconds(401, lambda: opens(portal, key["key"]))
    (listed,) = portal.client.get("/api/keys", headers=admin).json()["data"]
    assert listed["revokedAt"].endswith("Z")
    assert portal.client.delete(f"/api/keys/{key['id']}", headers=admin).status_code == 404
    assert portal.client.post(f"/api/keys/{key['id']}/rotate", headers=admin).status_code == 404


def test_another_tenants_keys_are_not_there(portal: Portal) -> None:
    admin, other = portal.admin("acme"), portal.admin("other")
    key = make(portal, admin)
    assert portal.client.get("/api/keys", headers=other).json()["total"] == 0
    assert portal.client.delete(f"/api/keys/{key['id']}", headers=other).status_code == 404
    assert portal.client.post(f"/api/keys/{key['id']}/rotate", headers=other).status_code == 404
    assert opens(portal, key["key"]).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"name": ""}, {"name": " "}, {"name": "x" * 101}, {"name": "a\0"}, {"name": 1}),
        *({"name": "n", "scopes": scopes} for scopes in ([], ["own"], "read")),
    ],
)
def test_keys_of_no_sense_are_400(portal: Portal, body: Any) -> None:
    answer = portal.client.post("/api/keys", json=body, headers=portal.admin())
    assert answer.status_code == 400
    assert answer.json()["errors"]


def test_an_id_that_is_none_is_400(portal: Portal) -> None:
    assert portal.client.delete("/api/keys/nonsense", headers=portal.admin()).status_code == 400
