"""`GET /api/users/{id}/export`: everything that is held on a person, and nothing of anybody else."""

import json
from typing import Any

import pytest

from api.database.tables import all_tables
from api.exports import repository
from api.exports.schemas import PersonExport
from api.exports.sources import PROFILE, SOURCES
from feature_store.analytics_sinks import roll_up_step
from tests.fixtures.platform import wait_until
from tests.fixtures.portal import PASSWORD, Portal
from tests.fixtures.search import tables_with

USER = "erasmus-7f3a"
WITHOUT_PEOPLE = {
    *("tenants", "api_keys", "items", "catalogues", "generation_jobs", "release_models", "daily_accuracy"),
    "alerts",
    *("analytics_days", "analytics_totals", "expired_counts", "usage_cycles", "usage_flushes", "plan_periods"),
    *("subscriptions", "billing_settings", "overage_charges", "stripe_events"),
    *("adopted_cluster", "idempotency_claims"),
    *("item_lists", "segments", "scenarios", "scenario_versions"),
    *("installation_secrets", "plan_periods"),
}
"""Tables that hold nothing on a single person: settings, catalogue, counts and money of a tenant."""


def export(portal: Portal, admin: dict[str, str], user: str = USER) -> dict[str, Any]:
    answer = portal.client.get(f"/api/users/{user}/export", headers=admin)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def live(portal: Portal, key: dict[str, str], admin: dict[str, str], user: str, email: str) -> dict[str, str]:
    """The person interacts, is shown something, logs in, fails to, and is changed by an administrator."""
    client = portal.client
    rows = [{"userId": user, "itemId": item, "interactionType": "like"} for item in ("a", "b")]
    client.post("/api/v1/interactions/batch", json={"interactions": rows}, headers=key)
    for _ in range(2):  # a history is kept when it is built for the second time
        assert client.post("/api/v1/recommend", json={"userId": user, "count": 2}, headers=key).status_code == 200
    body = {"email": email, "password": PASSWORD, "role": "admin"}
    assert client.put(f"/api/users/{user}", json=body, headers=admin).status_code == 200
    client.post("/api/auth/login", json={"email": email, "password": "wrong password"})
    own = portal.login(email)
    client.get("/api/recommendations/my", headers=own)
    cap = 10 + len(user)
    client.put("/api/billing/overage-cap", json={"capAmount": cap}, headers=own)
    client.post("/api/keys", json={"name": "shop"}, headers={**own, "Idempotency-Key": user})
    client.post("/api/auth/login", json={"email": email, "password": "wrong password"})
    return own


@pytest.fixture
def key(portal: Portal) -> dict[str, str]:
    """The header of acme's key; items are there."""
    header: dict[str, str] = portal.tenants.key("acme")
    rows = [{"id": item, "metadata": {}} for item in ("a", "b", "c")]
    assert portal.client.post("/api/items/batch", json={"items": rows}, headers=header).json()["failed"] == 0
    return header


def test_every_table_is_exported_or_known_to_hold_nothing_on_a_person() -> None:
    within = {"archived_interactions", "attributions", "recommendation_pages", "seen_impressions"}
    exported = {PROFILE.table, *within, *(source.table for source in SOURCES.values())}
    assert not exported & WITHOUT_PEOPLE
    assert exported | WITHOUT_PEOPLE == set(all_tables().tables), "decide what a new table means for an export"
    for table in all_tables().sorted_tables:
        named = {column.name for column in table.columns} & {"user_id", "actor", "account", "email"}
        assert not named or table.name in exported, f"{table.name} has {named}"
    assert set(PersonExport.model_fields) == {"user_id", "exported_at", "profile", *SOURCES}


def test_everything_held_on_a_person_is_in_it_and_nothing_of_another(portal: Portal, key: dict[str, str]) -> None:
    admin = portal.admin()
    live(portal, key, admin, USER, "erasmus@acme.example")
    live(portal, key, admin, "another", "another@acme.example")
    wait_until("impressions", lambda: portal.sql("SELECT count(*) FROM impressions") >= [(6,)])
    while roll_up_step(portal.tenants.url, "acme").more:
        pass
    failed = "SELECT count(*) FROM audit_entries WHERE action = 'login.failed'"
    wait_until("failures", lambda: portal.sql(failed) == [(4,)])
    found = export(portal, admin)
    holds = {name for name, rows in found.items() if rows}
    assert holds == {
        *("userId", "exportedAt", "profile", "interactions", "recommendations", "impressions", "history"),
        *("activeDays", "sessions", "storedResponses", "auditByUser", "auditAboutUser", "billingChanges"),
        *("loginNetworks", "failedLogins"),
    }
    tables = {PROFILE.table, *(source.table for source in SOURCES.values())}
    assert tables_with(portal.tenants.url, USER) <= tables
    assert {row["itemId"] for row in found["interactions"]} == {"a", "b"}
    assert all(row["attributedTo"] is None or len(row["attributedTo"]) == 36 for row in found["interactions"])
    assert found["profile"]["email"] == "erasmus@acme.example"
    assert found["profile"]["hasPassword"] is True
    assert [row["failures"] for row in found["failedLogins"]] == [1]
    assert {row["action"] for row in found["auditAboutUser"]} >= {"role.changed", "login.failed", "user.exported"}
    text = json.dumps(found)
    assert "another" not in text
    assert "$argon2" not in text
    assert "rk_" not in text or "rk_" in str(found["storedResponses"][0])  # the prefix of the key that it made


def test_an_impression_is_exported_with_its_request_its_page_and_what_was_seen(
    portal: Portal, key: dict[str, str]
) -> None:
    portal.client.post(
        "/api/v1/interactions", json={"userId": USER, "itemId": "c", "interactionType": "view"}, headers=key
    )
    asked = {"userId": USER, "count": 1, "exclude": ["a"]}
    first = portal.client.post("/api/v1/recommend", json=asked, headers=key)
    id_, item = first.headers["x-recommendation-id"], first.json()[0]["itemId"]
    further = {"recommendationId": id_, "count": 1}
    second = portal.client.post("/api/v1/recommend/next", json=further, headers=key).headers["x-recommendation-id"]
    seen = {"recommendationId": id_, "items": [{"itemId": item, "position": 4}]}
    assert portal.client.post("/api/v1/impressions", json=seen, headers=key).status_code == 204
    opening, page = export(portal, portal.admin())["impressions"]
    assert (opening["recommendationId"], page["recommendationId"]) == (id_, second)
    assert [(row["itemId"], row["position"]) for row in opening["seen"]] == [(item, 4)]
    assert opening["page"] == {"sequenceId": id_, "number": 0, "request": '{"algorithm":"hybrid","exclude":["a"]}'}
    assert (page["page"]["sequenceId"], page["page"]["number"], page["seen"]) == (id_, 1, None)


def test_no_row_is_lost_between_two_pages(portal: Portal, key: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "PAGE_ROWS", 3)
    rows = [
        {"userId": USER, "itemId": "a", "interactionType": "view", "timestamp": "2026-01-01T00:00:00Z"}
        for _ in range(7)
    ]
    portal.client.post("/api/v1/interactions/batch", json={"interactions": rows}, headers=key)
    later = {"userId": USER, "itemId": "b", "interactionType": "view"}
    for _ in range(2):
        portal.client.post("/api/v1/interactions", json=later, headers=key)
    found = export(portal, portal.admin())["interactions"]
    assert len({row["id"] for row in found}) == len(found) == 9
    assert [row["occurredAt"] for row in found] == sorted(row["occurredAt"] for row in found)


def test_only_an_administrator_of_the_tenant_gets_one(portal: Portal, key: dict[str, str]) -> None:
    admin = portal.admin()
    member = portal.person("member@acme.example")
    theirs = portal.person("theirs@other.example", tenant_id="other")
    assert portal.client.get(f"/api/users/{member}/export").status_code == 401
    assert portal.client.get(f"/api/users/{member}/export", headers=key).status_code == 401
    own = portal.login("member@acme.example")
    assert portal.client.get(f"/api/users/{member}/export", headers=own).status_code == 403
    for unknown in ("nobody", theirs):
        answer = portal.client.get(f"/api/users/{unknown}/export", headers=admin)
        assert (answer.status_code, answer.json()["status"]) == (404, 404)
    answer = portal.client.get(f"/api/users/{member}/export", headers=admin)
    assert answer.headers["cache-control"] == "no-store"
    exports = portal.client.get("/api/audit", params={"action": "user.exported"}, headers=admin).json()["data"]
    assert [entry["target"] for entry in exports] == [member]


def test_an_export_that_an_erasure_overtakes_does_not_end_as_a_whole_document(
    portal: Portal, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = portal.admin()
    rows = [{"userId": USER, "itemId": "a", "interactionType": "view"} for _ in range(5)]
    portal.client.post("/api/v1/interactions/batch", json={"interactions": rows}, headers=key)
    pages = repository.PersonRepository.pages

    async def erase_meanwhile(self: Any, source: Any, email: str | None = None) -> Any:
        async for page in pages(self, source, email):
            yield page
            if source.table == "interactions":
                portal.sql("DELETE FROM users WHERE id = %s", USER)

    monkeypatch.setattr(repository.PersonRepository, "pages", erase_meanwhile)
    with pytest.raises(ValueError, match="Expecting"):
        portal.client.get(f"/api/users/{USER}/export", headers=admin).json()


def test_an_end_user_with_somebodys_address_does_not_show_the_failed_logins_of_that_account(portal: Portal) -> None:
    portal.person("ada@acme.example")
    portal.client.post("/api/auth/login", json={"email": "ada@acme.example", "password": "wrong password"})
    boss = portal.admin("other")
    end_user = {"id": USER, "email": "ada@acme.example"}
    assert portal.client.post("/api/users", json=end_user, headers=boss).status_code == 201
    assert export(portal, boss)["failedLogins"] == []
