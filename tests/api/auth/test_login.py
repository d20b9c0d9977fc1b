"""`/api/auth`: logging in, registering, and the delay after wrong passwords."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from configs.auth import AuthSettings
from tests.api.conftest import SECRET
from tests.fixtures.passwords import let_hashes_overlap
from tests.fixtures.platform import wait_until
from tests.fixtures.portal import PASSWORD, Portal, bearer, running_portal

JANE = {"email": "newuser@example.com", "name": "Jane Doe", "password": "secure_password"}


def log_in(portal: Portal, email: str, password: str = PASSWORD) -> Any:
    return portal.client.post("/api/auth/login", json={"email": email, "password": password})


def open_to(tenant_id: str) -> AuthSettings:
    return AuthSettings(jwt_secret=SecretStr(SECRET), registration_tenant=tenant_id)


def test_registration_is_closed_until_a_tenant_is_named(portal: Portal) -> None:
    assert portal.client.post("/api/auth/register", json=JANE).status_code == 403
    assert portal.sql("SELECT count(*) FROM users") == [(0,)]


def test_who_registers_joins_the_tenant_of_the_setting_as_a_user(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme", "other", auth=open_to("other")) as portal:
        answer = portal.client.post("/api/auth/register", json={**JANE, "role": "admin", "tenantId": "acme"})
        assert answer.status_code == 201
        user = answer.json()
        assert user.keys() == {"id", "email", "name", "role", "isActive", "createdAt", "lastActiveAt"}
        assert (user["email"], user["name"], user["role"], user["isActive"]) == (
            *(JANE["email"], JANE["name"], "user", True),
        )
        assert "secure_password" not in answer.text
        token = log_in(portal, JANE["email"], JANE["password"]).json()["token"]
        assert portal.client.get(f"/api/users/{user['id']}", headers=bearer(token)).status_code == 200
        assert portal.client.get("/api/users", headers=bearer(token)).status_code == 403
        assert portal.sql("SELECT tenant_id, role FROM users") == [("other", "user")]


def test_an_address_that_is_taken_anywhere_is_a_neutral_409(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme", "other", auth=open_to("other")) as portal:
        portal.person(JANE["email"], tenant_id="acme")
        answer = portal.client.post("/api/auth/register", json={**JANE, "email": JANE["email"].upper()})
        assert (answer.status_code, answer.json()["detail"]) == (409, "This address cannot be used")


def test_a_tenant_that_is_not_there_is_open_to_nobody(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, auth=open_to("ghost")) as portal:
        assert portal.client.post("/api/auth/register", json=JANE).status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        *({"email": "nonsense"}, {"email": None}, {"name": "a\0"}, {"name": 3}),
        *({"password": "short"}, {"password": None}, {"password": "x" * 257}),
    ],
)
def test_registrations_of_no_sense_are_400(open_client: Any, tenants: Any, change: dict[str, Any]) -> None:
    with running_portal(open_client, tenants, "acme", auth=open_to("acme")) as portal:
        answer = portal.client.post("/api/auth/register", json=JANE | change)
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()["errors"]] == list(change)
        assert portal.sql("SELECT count(*) FROM users") == [(0,)]


@pytest.mark.parametrize(
    "change",
    ["UPDATE users SET password_hash = 'x'", "UPDATE users SET is_active = false", "DELETE FROM users"],
)
def test_a_login_whose_user_changes_while_the_password_is_checked_begins_nothing(portal: Portal, change: str) -> None:
    portal.person("ada@acme.example")
    passwords = portal.client.app.state.passwords  # type: ignore[attr-defined]
    matches = passwords.matches

    async def meanwhile(password: str, hashed: str | None) -> bool:
        found = await matches(password, hashed)
        portal.sql(change)
        return bool(found)

    passwords.matches = meanwhile
    assert log_in(portal, "ada@acme.example").status_code == 401
    assert portal.sql("SELECT count(*) FROM sessions") == [(0,)]


def test_ten_wrong_passwords_delay_the_account_whatever_the_address_they_came_from(portal: Portal) -> None:
    portal.person("ada@acme.example", "admin")
    portal.person("bo@acme.example")
    tries = []
    for number in range(10):
        elsewhere = TestClient(portal.client.app, client=(f"198.51.100.{number}", 50_000))
        elsewhere.portal = portal.client.portal  # the running application is in this event loop
        before, after = " \t\n\u00a0"[number % 4], "\u2003" * number
        email = f"{before}{'ADA' if number % 2 else 'ada'}@acme.example{after}"
        tries.append(log_in(replace(portal, client=elsewhere), email, "wrong"))
    assert {answer.status_code for answer in tries} == {401}
    # Each of the routes that takes a password, and the right one too.
    delayed = [
        log_in(portal, "ada@acme.example"),
        portal.client.post(
            "/auth/v1/token?grant_type=password", json={"email": "ada@acme.example", "password": PASSWORD}
        ),
    ]
    for answer in delayed:
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert answer.headers["x-ratelimit-limit"]
    assert delayed[1].json()["error_code"] == "over_request_rate_limit"
    assert log_in(portal, "bo@acme.example").status_code == 200
    # The delay ends, and a right password ends the count.
    portal.sql("UPDATE failed_logins SET delayed_until = now()")
    assert log_in(portal, "ada@acme.example").status_code == 200
    assert [log_in(portal, "ada@acme.example", "wrong").status_code for _ in range(9)] == [401] * 9
    assert log_in(portal, "ada@acme.example").status_code == 200


def test_each_failure_after_the_tenth_doubles_the_delay_up_to_15_minutes(portal: Portal) -> None:
    portal.person("ada@acme.example")
    for _ in range(10):
        log_in(portal, "ada@acme.example", "wrong")
    waits = []
    for _ in range(7):
        waits.append(int(log_in(portal, "ada@acme.example").headers["retry-after"]))
        portal.sql("UPDATE failed_logins SET delayed_until = now()")
        log_in(portal, "ada@acme.example", "wrong")
    expected = [30, 60, 120, 240, 480, 900, 900]
    assert all(below - 3 <= wait <= below for wait, below in zip(waits, expected, strict=True)), waits


def test_an_address_that_nobody_has_is_delayed_like_any_other_and_is_not_kept(portal: Portal) -> None:
    codes = [log_in(portal, "nobody@nowhere.example", "wrong").status_code for _ in range(11)]
    assert codes == [401] * 10 + [429]
    assert portal.sql("SELECT count(*) FROM failed_logins WHERE failed_logins::text LIKE '%%nowhere%%'") == [(0,)]


def test_a_thousand_guesses_at_once_tell_no_more_than_ten(portal: Portal, monkeypatch: Any) -> None:
    let_hashes_overlap(monkeypatch)
    portal.person("ada@acme.example")
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: log_in(portal, "ada@acme.example", "wrong").status_code, range(24)))
    assert codes.count(401) == 10
    assert codes.count(429) == 14


def test_failures_are_forgotten_after_a_day(portal: Portal) -> None:
    portal.person("ada@acme.example")
    for email in ("ada@acme.example", "someone@else.example"):
        for _ in range(9):
            log_in(portal, email, "wrong")
    portal.sql("UPDATE failed_logins SET last_failed_at = now() - interval '25 hours'")
    assert log_in(portal, "ada@acme.example", "wrong").status_code == 401
    assert portal.sql("SELECT failures, delayed_until FROM failed_logins") == [(1, None)]


def test_failures_are_forgotten_also_where_nobody_fails_any_more(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme") as portal:
        log_in(portal, "ada@acme.example", "wrong")
        portal.sql("UPDATE failed_logins SET last_failed_at = now() - interval '25 hours'")
        with open_client():
            wait_until("the failure", lambda: portal.sql("SELECT count(*) FROM failed_logins") == [(0,)])


def test_many_who_log_in_rightly_at_once_are_not_delayed(portal: Portal, monkeypatch: Any) -> None:
    let_hashes_overlap(monkeypatch)
    portal.person("ada@acme.example")
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: log_in(portal, "ada@acme.example").status_code, range(16)))
    assert codes == [200] * 16


@pytest.mark.parametrize("body", [{}, {"email": "a@b.example"}, {"email": 1, "password": "x"}, [], None])
def test_logins_of_no_sense_are_400(portal: Portal, body: Any) -> None:
    assert portal.client.post("/api/auth/login", json=body).status_code == 400
