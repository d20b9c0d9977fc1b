"""A deleted user leaves a tombstone and nothing else, over HTTP and in every table."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from api.database.engine import Database
from api.recommendations.impressions import ImpressionLog, ImpressionRow
from api.tenants.leftovers import delete_leftovers
from api.tenants.service import delete_tenant
from feature_store.analytics_sinks import roll_up_step
from tests.fixtures.platform import wait_until
from tests.fixtures.portal import PASSWORD, Portal
from tests.fixtures.search import tables_with

USER = "erasmus-7f3a"


def live(portal: Portal, key: dict[str, str], user: str = USER) -> None:
    """The user likes two items and asks for recommendations."""
    rows = [{"userId": user, "itemId": item, "interactionType": "like"} for item in ("a", "b")]
    answer = portal.client.post(
        "/api/v1/interactions/batch", json={"interactions": rows}, headers={**key, "Idempotency-Key": f"k-{user}"}
    )
    assert answer.json()["failed"] == 0
    for _ in range(2):
        ask(portal, key, user)


def ask(portal: Portal, key: dict[str, str], user: str) -> None:
    answer = portal.client.post("/api/v1/recommend", json={"userId": user, "count": 2}, headers=key)
    assert answer.status_code == 200, answer.text


@pytest.fixture
def key(portal: Portal) -> dict[str, str]:
    """The header of acme's key; two items are there."""
    header: dict[str, str] = portal.tenants.key("acme")
    rows = [{"id": item, "metadata": {}} for item in ("a", "b", "c")]
    assert portal.client.post("/api/items/batch", json={"items": rows}, headers=header).json()["failed"] == 0
    return header


def test_who_is_deleted_leaves_nothing_but_the_tombstone(portal: Portal, key: dict[str, str]) -> None:
    admin = portal.admin()
    for user in (USER, "another"):
        new = portal.client.post("/api/users", json={"id": user}, headers={**admin, "Idempotency-Key": user})
        assert new.status_code == 201
        live(portal, key, user)
    own_password = {"email": "erasmus@acme.example", "password": PASSWORD}
    assert portal.client.put(f"/api/users/{USER}", json=own_password, headers=admin).status_code == 200
    own = portal.login("erasmus@acme.example")
    assert portal.client.get("/api/recommendations/my", headers=own).status_code == 200
    wait_until("impressions", lambda: portal.sql("SELECT count(*) FROM impressions") >= [(4,)])
    while roll_up_step(portal.tenants.url, "acme").more:
        pass
    held = {"users", "interactions", "impressions", "sessions", "idempotency_records", "analytics_active_users"}
    assert held | {"recommendations"} <= tables_with(portal.tenants.url, USER)

    before = datetime.now(UTC)
    assert portal.client.delete(f"/api/users/{USER}", headers=admin).status_code == 204

    assert tables_with(portal.tenants.url, USER) == {"tombstones"}
    assert tables_with(portal.tenants.url, "erasmus@acme.example") == set()
    ((tenant, erased_at),) = portal.sql("SELECT tenant_id, erased_at FROM tombstones")
    assert tenant == "acme"
    assert before - timedelta(seconds=1) <= erased_at <= datetime.now(UTC) + timedelta(seconds=1)
    assert portal.client.get(f"/api/users/{USER}", headers=admin).status_code == 404
    assert portal.client.get(f"/api/users/{USER}/interactions", headers=admin).status_code == 404
    assert portal.client.get("/api/users/another/interactions", headers=admin).json()["total"] == 2
    assert held - {"sessions"} <= tables_with(portal.tenants.url, "another")


def test_counts_are_those_of_who_is_left(portal: Portal, key: dict[str, str]) -> None:
    admin = portal.admin()
    live(portal, key)
    live(portal, key, "another")
    wait_until("impressions", lambda: portal.sql("SELECT count(*) FROM impressions") == [(4,)])
    roll_up_step(portal.tenants.url, "acme")
    assert portal.sql("SELECT interactions FROM analytics_totals") == [(4,)]
    portal.client.delete(f"/api/users/{USER}", headers=admin)
    assert portal.sql("SELECT users, interactions FROM analytics_totals") == [(2, 2)]
    assert portal.sql("SELECT sum(active_users) FROM analytics_days") == [(1,)]
    assert portal.client.get("/api/analytics/stats", headers=admin).json()["totalUsers"] == 2


def test_a_failed_erasure_erases_nothing(portal: Portal, key: dict[str, str]) -> None:
    admin = portal.admin()
    live(portal, key)
    wait_until("impressions", lambda: portal.sql("SELECT count(*) FROM impressions") == [(2,)])
    wait_until("the kept history", lambda: portal.sql("SELECT count(*) FROM user_histories") == [(1,)])
    before = tables_with(portal.tenants.url, USER)
    portal.sql("ALTER TABLE tombstones ADD CONSTRAINT none CHECK (false)")
    assert portal.client.delete(f"/api/users/{USER}", headers=admin).status_code == 500
    assert tables_with(portal.tenants.url, USER) == before
    portal.sql("ALTER TABLE tombstones DROP CONSTRAINT none")
    assert portal.client.delete(f"/api/users/{USER}", headers=admin).status_code == 204
    assert tables_with(portal.tenants.url, USER) == {"tombstones"}


def test_another_tenants_user_of_the_same_id_keeps_everything(portal: Portal, key: dict[str, str]) -> None:
    other = portal.tenants.key("other")
    rows = [{"id": item, "metadata": {}} for item in ("a", "b")]
    portal.client.post("/api/items/batch", json={"items": rows}, headers=other)
    live(portal, key)
    live(portal, other)
    wait_until("impressions", lambda: portal.sql("SELECT count(*) FROM impressions") == [(4,)])
    assert portal.client.delete(f"/api/users/{USER}", headers=portal.admin()).status_code == 204
    for table, rows in (("users", 1), ("interactions", 2), ("impressions", 2), ("idempotency_records", 1)):
        assert portal.sql(f"SELECT tenant_id, count(*) FROM {table} WHERE tenant_id = 'other' GROUP BY 1") == [
            ("other", rows)
        ]
    assert portal.sql("SELECT tenant_id FROM tombstones") == [("acme",)]


def test_an_id_that_is_used_again_begins_anew_and_can_be_erased_again(portal: Portal, key: dict[str, str]) -> None:
    admin = portal.admin()
    live(portal, key)
    assert portal.client.delete(f"/api/users/{USER}", headers=admin).status_code == 204
    ((first,),) = portal.sql("SELECT erased_at FROM tombstones")
    row = {"userId": USER, "itemId": "c", "interactionType": "view"}
    assert portal.client.post("/api/v1/interactions", json=row, headers=key).status_code == 201
    page = portal.client.get(f"/api/users/{USER}/interactions", headers=admin).json()
    assert [each["itemId"] for each in page["data"]] == ["c"]
    ask(portal, key, USER)
    wait_until("the new answer", lambda: portal.sql("SELECT 1 FROM impressions WHERE user_id = %s", USER) != [])
    assert portal.client.delete(f"/api/users/{USER}", headers=admin).status_code == 204
    ((second,),) = portal.sql("SELECT erased_at FROM tombstones")
    assert second > first
    assert tables_with(portal.tenants.url, USER) == {"tombstones"}


def test_an_interaction_that_comes_meanwhile_waits_and_is_a_new_users(portal: Portal, key: dict[str, str]) -> None:
    live(portal, key)
    row = {"userId": USER, "itemId": "c", "interactionType": "view"}
    with ThreadPoolExecutor(1) as pool, psycopg.connect(portal.tenants.url) as erasing:
        erasing.execute("DELETE FROM users WHERE id = %s", [USER])
        coming = pool.submit(portal.client.post, "/api/v1/interactions", json=row, headers=key)
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        wait_until("the interaction", lambda: bool(portal.sql(waiting)))
        erasing.execute("DELETE FROM interactions WHERE user_id = %s", [USER])
        erasing.commit()
        assert coming.result().status_code == 201
    assert portal.sql("SELECT user_id, item_id FROM interactions") == [(USER, "c")]
    assert portal.sql("SELECT count(*) FROM users WHERE id = %s", USER) == [(1,)]


def shown(user: str, at: datetime) -> ImpressionRow:
    return ImpressionRow(uuid4(), "acme", user, "hybrid", "r1", None, ["a"], [0.5], at)


def write(url: str, answers: Sequence[ImpressionRow]) -> None:
    """Write the answers as the log of another process does that held them meanwhile."""

    async def run() -> None:
        database = Database(url, pool_min=1)
        await database.open()
        try:
            log = ImpressionLog(database.pool)
            for each in answers:
                log.record(each)
            await log.flush()
        finally:
            await database.close()

    asyncio.run(run())


def test_answers_that_still_wait_to_be_written_are_not_written_any_more(portal: Portal, key: dict[str, str]) -> None:
    now = datetime.now(UTC)
    live(portal, key)
    assert portal.client.delete(f"/api/users/{USER}", headers=portal.admin()).status_code == 204
    later = datetime.now(UTC) + timedelta(seconds=5)
    # The second by a token that is good for a few seconds more: nobody of this id has come since.
    write(portal.tenants.url, [shown(USER, now), shown(USER, later), shown("another", now)])
    assert tables_with(portal.tenants.url, USER) == {"tombstones"}
    assert portal.sql("SELECT user_id FROM impressions") == [("another",)]
    row: dict[str, Any] = {"userId": USER, "itemId": "c", "interactionType": "view"}
    portal.client.post("/api/v1/interactions", json=row, headers=key)
    write(portal.tenants.url, [shown(USER, now), shown(USER, later)])
    assert portal.sql("SELECT created_at FROM impressions WHERE user_id = %s", USER) == [(later,)]


def test_no_user_is_erased_between_the_look_and_the_write(portal: Portal) -> None:
    locks = "SELECT 1 FROM pg_locks WHERE locktype = %s AND granted = %s"
    with ThreadPoolExecutor(1) as pool, psycopg.connect(portal.tenants.url) as blocking:
        blocking.execute("LOCK TABLE impressions IN ACCESS EXCLUSIVE MODE")
        written = pool.submit(write, portal.tenants.url, [shown(USER, datetime.now(UTC))])
        wait_until("the write", lambda: bool(portal.sql(locks, "relation", False)))
        assert portal.sql(locks, "advisory", True)  # for which an erasure would wait
        blocking.rollback()
        written.result()
    assert portal.sql("SELECT count(*) FROM impressions") == [(1,)]


def test_answers_are_written_wholly_before_an_erasure_or_after_it(portal: Portal, key: dict[str, str]) -> None:
    live(portal, key)
    admin = portal.admin()
    wait_until("impressions", lambda: portal.sql("SELECT count(*) FROM impressions") == [(2,)])
    with ThreadPoolExecutor(1) as pool, psycopg.connect(portal.tenants.url) as writing:
        writing.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended('erasure', 0))")  # as the log does first
        writing.execute(
            "INSERT INTO impressions (tenant_id, recommendation_id, user_id, algorithm, item_ids, scores) "
            "VALUES ('acme', gen_random_uuid(), %s, 'hybrid', '{a}', '{1}')",
            [USER],
        )
        deletion = pool.submit(portal.client.delete, f"/api/users/{USER}", headers=admin)
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        wait_until("the erasure", lambda: bool(portal.sql(waiting)))
        writing.commit()
        assert deletion.result().status_code == 204
    assert tables_with(portal.tenants.url, USER) == {"tombstones"}


def test_a_deleted_tenants_tombstones_go_with_it(portal: Portal, key: dict[str, str]) -> None:
    live(portal, key)
    assert portal.client.delete(f"/api/users/{USER}", headers=portal.admin()).status_code == 204
    portal.tenants.run(lambda session: delete_tenant(session, "acme"))
    assert tables_with(portal.tenants.url, USER) == set()


def test_what_comes_while_a_tenant_is_being_deleted_does_not_outlive_it(portal: Portal, key: dict[str, str]) -> None:
    """An interaction of a new user is committed between the deletion's statements and its commit."""
    admin = portal.admin()
    live(portal, key, "another")
    row = {"userId": USER, "itemId": "a", "interactionType": "view"}
    own = {"email": f"{USER}@acme.example"}

    async def delete_meanwhile(session: Any) -> None:
        await delete_tenant(session, "acme")
        for path, body, headers in (("/api/v1/interactions", row, key), ("/api/users", own, admin)):
            answer = await asyncio.to_thread(portal.client.post, path, json=body, headers=headers)
            assert answer.status_code == 201, answer.text

    async def sweep() -> int:
        database = Database(portal.tenants.url, pool_min=1)
        try:
            return await delete_leftovers(database)
        finally:
            await database.close()

    portal.tenants.run(delete_meanwhile)
    assert {"users", "interactions"} <= tables_with(portal.tenants.url, USER)
    assert asyncio.run(sweep()) >= 3
    assert tables_with(portal.tenants.url, USER) == set()
    assert asyncio.run(sweep()) == 0
    portal.sql("UPDATE tenants SET deleted_at = deleted_at - interval '25 hours' WHERE id = 'acme'")
    portal.sql("INSERT INTO catalogues (tenant_id) VALUES ('acme')")
    assert asyncio.run(sweep()) == 0


def test_nothing_of_the_addresses_of_a_deleted_tenant_remains(portal: Portal) -> None:
    for tenant_id in ("acme", "other"):
        portal.person(f"ada@{tenant_id}.example", tenant_id=tenant_id)
        portal.client.post("/api/auth/login", json={"email": f"ada@{tenant_id}.example", "password": "wrong password"})
    portal.tenants.run(lambda session: delete_tenant(session, "acme"))
    left = "SELECT account = sha256('ada@other.example') FROM failed_logins"
    assert portal.sql(left) == [(True,)]
