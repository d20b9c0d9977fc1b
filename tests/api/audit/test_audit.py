"""The audit trail over HTTP: what is in it, who reads it, how long it is kept, and what an erasure takes out of it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.failures import LoginFailures
from api.audit.repository import ROWS_PER_HOUR
from api.billing.repository import BillingRepository, Change
from api.database.engine import Database
from api.database.erasure_lock import NO_ERASURE_IN_TENANT
from api.database.origin import Origin
from api.database.scope import TenantScope
from api.users.service import delete_user
from feature_store.analytics_sinks import ReleasedModel, record_release
from tests.fixtures.journals import journals
from tests.fixtures.platform import wait_until
from tests.fixtures.portal import PASSWORD, Portal
from tests.fixtures.search import tables_with

TESTCLIENT = "testclient"
"""The address that Starlette's test client has."""


def trail(portal: Portal, admin: dict[str, str], **filters: Any) -> list[dict[str, Any]]:
    answer = portal.client.get("/api/audit", params={"pageSize": 100, **filters}, headers=admin)
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert page["total"] == len(page["data"])
    return list(page["data"])


def total(portal: Portal, admin: dict[str, str], **filters: Any) -> int:
    """How many entries there are: the only figure to wait for, because a page counts before it reads its rows."""
    return int(portal.client.get("/api/audit", params=filters, headers=admin).json()["total"])


def told(entries: list[dict[str, Any]], *fields: str) -> list[tuple[Any, ...]]:
    """These fields of the entries, oldest first."""
    return [tuple(entry[field] for field in fields) for entry in reversed(entries)]


def fail(portal: Portal, email: str, times: int = 1) -> None:
    for _ in range(times):
        answer = portal.client.post("/api/auth/login", json={"email": email, "password": "wrong password"})
        assert answer.status_code in (401, 429)


def flush(portal: Portal) -> None:
    failures: LoginFailures = portal.client.app.state.login_failures  # type: ignore[attr-defined]
    portal.client.portal.call(failures.flush)  # type: ignore[union-attr]


def test_everything_an_administrator_does_is_an_entry(portal: Portal) -> None:
    admin = portal.admin()
    (boss,) = (row[0] for row in portal.sql("SELECT id FROM users"))
    client = portal.client
    key = client.post("/api/keys", json={"name": "shop"}, headers=admin).json()["id"]
    client.post(f"/api/keys/{key}/rotate", headers=admin)
    client.delete(f"/api/keys/{key}", headers=admin)
    client.post("/api/users", json={"id": "ann", "email": "ann@acme.example"}, headers=admin)
    client.put("/api/users/ann", json={"role": "admin", "name": "Ann", "password": PASSWORD}, headers=admin)
    client.patch("/api/users/ann/toggle-status", headers=admin)
    client.put("/api/billing/overage-cap", json={"capAmount": 12.5}, headers=admin)
    entries = trail(portal, admin)
    assert told(entries, "actor", "action", "target", "ip")[3:] == [
        (boss, "key.created", key, TESTCLIENT),
        (boss, "key.rotated", key, TESTCLIENT),
        (boss, "key.revoked", key, TESTCLIENT),
        (boss, "user.created", "ann", TESTCLIENT),
        (boss, "role.changed", "ann", TESTCLIENT),
        (boss, "password.changed", "ann", TESTCLIENT),
        (boss, "user.changed", "ann", TESTCLIENT),
        (boss, "user.changed", "ann", TESTCLIENT),
        (boss, "cap.changed", "acme", TESTCLIENT),
    ]
    assert told(entries, "actor", "action", "target")[:3] == [
        ("service", "tenant.created", "acme"),  # as the fixture makes them
        ("service", "user.created", boss),
        (boss, "login.succeeded", boss),
    ]
    details = {entry["action"]: entry["detail"] for entry in entries}
    assert details["key.created"] == {"name": "shop", "scopes": ["read", "write"], "rateLimit": None}
    assert details["role.changed"] == {"before": "user", "after": "admin"}
    assert details["cap.changed"] == {"before": None, "after": {"overageBudgetCap": 12.5}}
    assert details["user.created"] == {"role": "admin", "isActive": True, "hasPassword": True}
    assert "ann@acme.example" not in str(entries)
    assert {entry["at"][-1] for entry in entries} == {"Z"}


def test_an_address_that_stays_the_same_is_no_entry(portal: Portal) -> None:
    """Otherwise any user could fill the trail."""
    admin = portal.admin()
    me = portal.client.get("/auth/v1/user", headers=admin).json()
    for email in (me["email"], "other@acme.example", "other@acme.example"):
        body = {"email": email, "current_password": PASSWORD}
        answer = portal.client.put("/auth/v1/user", json=body, headers=admin)
        assert answer.status_code == 200, answer.text
    assert told(trail(portal, admin, action="user.changed"), "detail") == [({"changed": ["email"]},)]


def test_changes_of_plan_are_entries_by_stripe_or_by_the_service(portal: Portal) -> None:
    admin = portal.admin()
    before, after = {"planId": "plan-starter"}, {"planId": "plan-growth"}

    async def change(session: AsyncSession) -> None:
        await BillingRepository(session, TenantScope("acme")).note(Change("plan", before, after))

    portal.tenants.run(change)
    portal.sql(
        "INSERT INTO subscriptions (tenant_id, customer_id, plan_id, status, past_due_since) "
        "VALUES ('acme', 'cus_1', 'plan-growth', 'past_due', now() - interval '8 days')"
    )
    wait_until("the end of the grace period", lambda: total(portal, admin, action="plan") == 2)
    assert told(trail(portal, admin, action="plan"), "actor", "action", "target", "ip", "detail") == [
        ("stripe", "plan.changed", "acme", None, {"before": before, "after": after}),
        ("service", "plan.changed", "acme", None, {"before": after, "after": {"planId": "free"}}),
    ]


def test_filters_narrow_the_list_and_pages_divide_it(portal: Portal) -> None:
    admin = portal.admin()
    portal.client.post("/api/keys", json={"name": "shop"}, headers=admin)
    assert [entry["action"] for entry in trail(portal, admin, action="key")] == ["key.created"]
    assert [entry["action"] for entry in trail(portal, admin, action="login.succeeded")] == ["login.succeeded"]
    assert trail(portal, admin, action="key.rev") == []
    assert {entry["actor"] for entry in trail(portal, admin, actor="service")} == {"service"}
    created = trail(portal, admin, action="key")[0]["at"]
    assert [entry["action"] for entry in trail(portal, admin, **{"from": created})] == ["key.created"]
    assert "key.created" not in {entry["action"] for entry in trail(portal, admin, to=created)}
    second = portal.client.get("/api/audit", params={"page": 2, "pageSize": 3}, headers=admin).json()
    assert {name: second[name] for name in ("total", "page", "pageSize")} == {"total": 4, "page": 2, "pageSize": 3}
    assert [entry["action"] for entry in second["data"]] == ["tenant.created"]
    for wrong in ({"from": created, "to": created}, {"from": "yesterday"}, {"pageSize": 101}, {"action": "DROP"}):
        answer = portal.client.get("/api/audit", params=wrong, headers=admin)
        assert answer.status_code == 400, wrong
        assert answer.json()["errors"]


def test_only_administrators_read_it_and_only_their_own(portal: Portal) -> None:
    admin, stranger = portal.admin(), portal.admin("other")
    portal.person("member@acme.example")
    assert portal.client.get("/api/audit").status_code == 401
    assert portal.client.get("/api/audit", headers=portal.tenants.key("acme")).status_code == 401
    assert portal.client.get("/api/audit", headers=portal.login("member@acme.example")).status_code == 403
    ours = {entry["id"] for entry in trail(portal, admin)}
    theirs = {entry["id"] for entry in trail(portal, stranger)}
    assert ours and theirs and not ours & theirs


def test_failed_logins_are_entries_of_the_account_and_bounded(portal: Portal) -> None:
    admin = portal.admin()
    ann = portal.person("ann@acme.example")
    fail(portal, "ann@acme.example", ROWS_PER_HOUR + 15)
    fail(portal, "nobody@acme.example", 3)
    flush(portal)
    failed = trail(portal, admin, action="login.failed")
    assert {(entry["actor"], entry["target"]) for entry in failed} == {("anonymous", ann)}
    assert [entry["ip"] for entry in failed if entry["detail"] is None] == [TESTCLIENT] * ROWS_PER_HOUR
    assert [entry["detail"] for entry in failed if entry["detail"]] == [{"more": 15}]
    fail(portal, "ann@acme.example", 5)
    flush(portal)
    again = trail(portal, admin, action="login.failed")
    assert len(again) == len(failed) == ROWS_PER_HOUR + 1
    assert [entry["detail"] for entry in again if entry["detail"]] == [{"more": 20}]


def test_two_processes_that_write_failures_at_once_keep_to_the_same_bound(portal: Portal) -> None:
    admin = portal.admin()
    ann = portal.person("ann@acme.example")

    async def write() -> None:
        databases = [Database(portal.tenants.url, pool_min=1) for _ in range(4)]
        for database in databases:
            await database.open()
        recorders = [LoginFailures(database.pool) for database in databases]
        for failures in recorders:
            for _ in range(ROWS_PER_HOUR + 1):
                failures.record("acme", ann, Origin(name="anonymous", address="203.0.113.7"))
        await asyncio.gather(*(failures.flush() for failures in recorders))
        for database in databases:
            await database.close()

    asyncio.run(write())
    failed = trail(portal, admin, action="login.failed")
    assert len(failed) == ROWS_PER_HOUR + 1
    assert [entry["detail"] for entry in failed if entry["detail"]] == [{"more": 3 * ROWS_PER_HOUR + 4}]


def test_logins_of_one_user_are_bounded_too(portal: Portal) -> None:
    admin = portal.admin()
    for _ in range(ROWS_PER_HOUR + 3):
        portal.login("admin@acme.example")
    entries = trail(portal, admin, action="login.succeeded")
    assert len(entries) == ROWS_PER_HOUR + 1
    assert [entry["detail"] for entry in entries if entry["detail"]] == [{"more": 4}]


def test_failures_in_memory_are_bounded_while_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch, tenants: Any
) -> None:
    monkeypatch.setattr("api.audit.failures.CAPACITY", 10)

    async def run() -> int:
        database = Database("postgresql://nobody@127.0.0.1:9/nothing", pool_min=1)
        failures = LoginFailures(database.pool)
        for number in range(50):
            for _ in range(3 * ROWS_PER_HOUR):
                failures.record("acme", f"u{number}", Origin(name="anonymous", address="203.0.113.7"))
        await database.close()
        return sum(len(failed.first) for failed in failures._pending.values())

    assert asyncio.run(run()) == 10 * ROWS_PER_HOUR


def test_a_failure_that_cannot_be_written_is_written_later(portal: Portal) -> None:
    admin = portal.admin()
    portal.person("ann@acme.example")
    portal.sql("ALTER TABLE audit_entries RENAME TO elsewhere")
    fail(portal, "ann@acme.example", 2)
    with pytest.raises(psycopg.errors.UndefinedTable):
        flush(portal)
    portal.sql("ALTER TABLE elsewhere RENAME TO audit_entries")
    wait_until("the failures", lambda: total(portal, admin, action="login.failed") == 2)
    assert len(trail(portal, admin, action="login.failed")) == 2


def test_an_effect_that_fails_leaves_no_entry(portal: Portal) -> None:
    admin = portal.admin()
    before = len(trail(portal, admin))
    assert portal.client.delete("/api/users/nobody", headers=admin).status_code == 404
    assert portal.client.put("/api/users/nobody", json={"role": "admin"}, headers=admin).status_code == 404
    assert len(trail(portal, admin)) == before


def test_an_erased_person_is_named_nowhere_in_it(portal: Portal) -> None:
    admin = portal.admin()
    ann = portal.person("ann@acme.example", "admin", id="ann-7f3a")
    own = portal.login("ann@acme.example")
    portal.client.post("/api/keys", json={"name": "laptop of ann@acme.example"}, headers=own)
    portal.client.put("/api/users/ann-7f3a", json={"name": "Ann"}, headers=own)
    fail(portal, "ann@acme.example", 2)
    flush(portal)
    fail(portal, "ann@acme.example")  # most likely not written yet when the user is erased
    assert portal.client.delete(f"/api/users/{ann}", headers=admin).status_code == 204
    flush(portal)
    for word in ("ann-7f3a", "ann@acme.example"):
        assert tables_with(portal.tenants.url, word) - {"api_keys"} <= {"tombstones"}
    entries = trail(portal, admin)
    assert ("erased", "erased") in {(entry["actor"], entry["ip"]) for entry in entries}
    failed = [entry for entry in entries if entry["action"] == "login.failed"]
    assert len(failed) in (2, 3)
    assert {(entry["target"], entry["ip"]) for entry in failed} == {("erased", "erased")}
    deleted = next(entry for entry in entries if entry["action"] == "user.deleted")
    assert deleted["target"] == "erased"
    assert deleted["actor"] != "erased" and deleted["ip"] == TESTCLIENT  # those of the administrator
    assert [entry["detail"]["name"] for entry in entries if entry["action"] == "key.created"] == ["erased"]


def test_a_user_named_like_a_party_does_not_act_in_its_name(portal: Portal) -> None:
    admin = portal.admin()
    portal.person("fake@acme.example", "admin", id="stripe")
    fake = portal.login("fake@acme.example")
    portal.client.post("/api/keys", json={"name": "hidden"}, headers=fake)
    assert trail(portal, admin, actor="stripe") == []
    assert [entry["actor"] for entry in trail(portal, admin, action="key")] == ["user:stripe"]
    portal.client.delete("/api/users/stripe", headers=admin)
    assert [entry["actor"] for entry in trail(portal, admin, action="key")] == ["erased"]


def test_erasing_a_user_named_like_a_key_hides_nothing_of_the_key(portal: Portal) -> None:
    admin = portal.admin()
    key = portal.client.post("/api/keys", json={"name": "shop"}, headers=admin).json()["id"]
    portal.client.post("/api/users", json={"id": key}, headers=admin)
    portal.client.delete(f"/api/users/{key}", headers=admin)
    assert [entry["target"] for entry in trail(portal, admin, action="key")] == [key]


def test_an_entry_by_a_user_who_is_erased_at_that_moment_does_not_name_the_user(portal: Portal, tmp_path: Path) -> None:
    """The writer decides by the database whether its actor is still there, so a token that outlives its user for
    seconds writes no name."""
    portal.admin()
    gone = portal.person("gone@acme.example", "admin", id="gone-1")
    token = portal.login("gone@acme.example")
    assert portal.client.get("/api/keys", headers=token).status_code == 200  # it is known for seconds from here on
    erasures, _ = journals(tmp_path)
    portal.tenants.run(lambda session: delete_user(session, TenantScope("acme"), gone, erasures))
    assert portal.client.post("/api/keys", json={"name": "late"}, headers=token).status_code == 201
    assert portal.client.put("/api/billing/overage-cap", json={"capAmount": 7}, headers=token).status_code == 200
    assert tables_with(portal.tenants.url, "gone-1") == {"tombstones"}


def test_an_erasure_waits_for_who_is_writing_an_entry_and_erases_it(portal: Portal) -> None:
    admin = portal.admin()
    portal.person("gone@acme.example", "admin", id="gone-1")
    with psycopg.connect(portal.tenants.url) as writer, ThreadPoolExecutor(1) as other:
        writer.execute(NO_ERASURE_IN_TENANT, {"tenant": "acme"})
        erasing = other.submit(portal.client.delete, "/api/users/gone-1", headers=admin)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
        wait_until("the erasure waits", lambda: portal.sql(waiting) == [(1,)])
        writer.execute(
            "INSERT INTO audit_entries (tenant_id, actor, action, ip) "
            "VALUES ('acme', 'gone-1', 'key.late', '192.0.2.1')"
        )
        writer.execute(
            "INSERT INTO billing_audit (tenant_id, actor, action, after) VALUES ('acme', 'user:gone-1', 'cap', '{}')"
        )
        writer.commit()
        assert erasing.result().status_code == 204
    assert tables_with(portal.tenants.url, "gone-1") == {"tombstones"}
    assert [(entry["actor"], entry["ip"]) for entry in trail(portal, admin, action="key.late")] == [("erased",) * 2]


def test_a_release_promotes_the_versions_that_did_not_serve_before(portal: Portal) -> None:
    admin = portal.admin()
    url = portal.tenants.url
    record_release(url, "acme", "r1", [ReleasedModel("hybrid", "3", 0.9), ReleasedModel("collaborative", "1", None)])
    record_release(url, "acme", "r2", [ReleasedModel("hybrid", "4", 0.9), ReleasedModel("collaborative", "1", None)])
    record_release(url, "acme", "r2", [ReleasedModel("hybrid", "4", 0.9)])
    entries = trail(portal, admin, action="model.promoted")
    assert sorted(told(entries, "actor", "target")) == [
        ("pipeline", "collaborative 1"),
        ("pipeline", "hybrid 3"),
        ("pipeline", "hybrid 4"),
    ]
    assert {"family": "hybrid", "version": "4", "release": "r2"} in [entry["detail"] for entry in entries]
