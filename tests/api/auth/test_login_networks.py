"""Wrong passwords delay an account, and spare the networks that it is used from."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.auth import repository
from tests.fixtures.passwords import let_hashes_overlap
from tests.fixtures.portal import PASSWORD, ROOMY, Portal, bearer, running_portal

ADA = "ada@acme.example"
HOME, ALSO_HOME, OFFICE = "203.0.113.7", "203.0.113.99", "192.0.2.1"
STRANGER = "198.51.100.1"


def log_in(portal: Portal, email: str = ADA, password: str = PASSWORD) -> int:
    return portal.client.post("/api/auth/login", json={"email": email, "password": password}).status_code


def fail(portal: Portal, times: int, email: str = ADA) -> list[int]:
    return [log_in(portal, email, "wrong") for _ in range(times)]


def test_while_a_stranger_guesses_the_owner_gets_in_from_networks_the_account_is_used_from(portal: Portal) -> None:
    portal.person(ADA)
    assert log_in(portal.at(HOME)) == 200
    assert fail(portal.at(STRANGER), 12) == [401] * 10 + [429] * 2
    assert log_in(portal.at(STRANGER)) == 429
    assert log_in(portal.at("203.0.114.7")) == 429  # the network beside
    assert log_in(portal.at(HOME)) == 200
    assert log_in(portal.at(ALSO_HOME)) == 200
    assert log_in(portal.at(STRANGER)) == 429  # the owner's login does not end the stranger's delay


def test_a_network_of_the_accounts_is_delayed_by_its_own_failures(portal: Portal) -> None:
    portal.person(ADA)
    for address in (HOME, OFFICE):
        assert log_in(portal.at(address)) == 200
    assert fail(portal.at(HOME), 11) == [401] * 10 + [429]
    assert log_in(portal.at(ALSO_HOME)) == 429
    assert log_in(portal.at(OFFICE)) == 200
    assert log_in(portal.at(STRANGER)) == 429  # ten wrong passwords delay the account, whatever the address
    portal.sql("UPDATE login_networks SET delayed_until = now()")
    assert fail(portal.at(HOME), 1) == [401]
    assert portal.sql(
        "SELECT ceil(extract(epoch FROM delayed_until - last_failed_at)) FROM login_networks "
        "WHERE network = '203.0.113.0/24'"
    ) == [(60,)]


def test_a_right_password_takes_the_failures_of_its_network_from_those_of_the_account(portal: Portal) -> None:
    portal.person(ADA)
    assert log_in(portal.at(HOME)) == 200
    fail(portal.at(STRANGER), 3)
    fail(portal.at(HOME), 6)
    assert portal.sql("SELECT failures FROM failed_logins") == [(9,)]
    assert log_in(portal.at(HOME)) == 200
    assert portal.sql("SELECT failures, delayed_until FROM failed_logins") == [(3, None)]
    fail(portal.at(HOME), 9)
    assert portal.sql("SELECT failures, delayed_until IS NULL FROM failed_logins") == [(12, False)]
    assert log_in(portal.at(HOME)) == 200
    assert portal.sql("SELECT failures, delayed_until FROM failed_logins") == [(3, None)]


def test_failures_at_home_during_a_delay_neither_prolong_it_nor_end_it(portal: Portal) -> None:
    portal.person(ADA)
    assert log_in(portal.at(HOME)) == 200
    fail(portal.at(STRANGER), 10)
    before = portal.sql("SELECT delayed_until FROM failed_logins")
    assert fail(portal.at(HOME), 3) == [401] * 3
    assert portal.sql("SELECT delayed_until FROM failed_logins") == before
    assert log_in(portal.at(HOME)) == 200
    assert portal.sql("SELECT failures, delayed_until FROM failed_logins") == [(10, *before[0])]


def test_a_network_is_forgotten_thirty_days_after_its_last_login(portal: Portal) -> None:
    portal.person(ADA)
    assert log_in(portal.at(HOME)) == 200
    portal.sql("UPDATE login_networks SET last_login_at = now() - interval '30 days 1 minute'")
    fail(portal.at(STRANGER), 10)
    assert log_in(portal.at(HOME)) == 429
    portal.person("bo@acme.example")
    assert log_in(portal.at(OFFICE), "bo@acme.example") == 200
    assert portal.sql("SELECT network FROM login_networks") == [("192.0.2.0/24",)]


def test_the_networks_of_a_user_are_bounded_and_go_with_the_user(portal: Portal, monkeypatch: Any) -> None:
    monkeypatch.setattr(repository, "MAX_NETWORKS", 3)
    boss = portal.admin()
    ada = portal.person(ADA)
    for number in range(5):
        assert log_in(portal.at(f"10.0.{number}.1")) == 200
    of_ada = "SELECT network FROM login_networks WHERE user_id = %s ORDER BY last_login_at"
    assert portal.sql(of_ada, ada) == [(f"10.0.{number}.0/24",) for number in (2, 3, 4)]
    fail(portal.at(STRANGER), 2)
    assert portal.client.delete(f"/api/users/{ada}", headers=boss).status_code == 204
    assert portal.sql(of_ada, ada) == []
    assert portal.sql("SELECT count(*) FROM failed_logins") == [(0,)]


def test_nobody_ends_a_delay_by_deleting_an_end_user_with_the_same_address(portal: Portal) -> None:
    portal.person(ADA)
    fail(portal.at(STRANGER), 10)
    boss = portal.admin("other")
    end_user = {"id": "customer", "email": ADA}
    assert portal.client.post("/api/users", json=end_user, headers=boss).status_code == 201
    assert portal.client.delete("/api/users/customer", headers=boss).status_code == 204
    assert log_in(portal.at(STRANGER)) == 429


def test_the_addresses_whose_failures_are_stored_are_bounded(portal: Portal, monkeypatch: Any) -> None:
    monkeypatch.setattr(repository, "MAX_ACCOUNTS", 3)
    monkeypatch.setattr(repository, "FAILURES_PER_COUNT", 1)
    portal.person(ADA)
    fail(portal, 10)
    for number in range(8):
        fail(portal, 1, f"nobody{number}@acme.example")
    assert portal.sql("SELECT count(*) <= 4 FROM failed_logins") == [(True,)]
    assert log_in(portal) == 429  # nobody ends a delay by failing at other addresses


def test_each_way_to_verify_a_password_is_delayed_by_all(portal: Portal) -> None:
    portal.person(ADA)
    home, stranger = portal.at(HOME), portal.at(STRANGER)
    headers = home.login(ADA)

    def ways(at: Portal) -> list[int]:
        body = {"email": ADA, "password": PASSWORD}
        change = {"password": "another password", "current_password": "wrong"}
        return [
            at.client.post("/api/auth/login", json=body).status_code,
            at.client.post("/auth/v1/token?grant_type=password", json=body).status_code,
            at.client.put("/auth/v1/user", json=change, headers=headers).status_code,
        ]

    change = {"password": "another password", "current_password": "wrong"}
    for _ in range(10):
        assert stranger.client.put("/auth/v1/user", json=change, headers=headers).status_code == 400
    assert ways(stranger) == [429, 429, 429]
    assert ways(home) == [200, 200, 400]


def test_an_address_that_nobody_has_is_answered_alike_at_every_step(portal: Portal) -> None:
    portal.person(ADA)
    assert log_in(portal.at(HOME)) == 200

    def answers(email: str) -> list[tuple[int, Any]]:
        at, found = portal.at(STRANGER), []
        for _ in range(12):
            answer = at.client.post("/api/auth/login", json={"email": email, "password": "wrong"})
            body = answer.json()
            found.append((answer.status_code, body["detail"].split(" in ")[0], sorted(answer.headers)))
        return found

    assert answers(ADA) == answers("nobody@acme.example")


def test_a_thousand_guesses_at_once_from_home_and_elsewhere_tell_no_more_than_twenty(
    portal: Portal, monkeypatch: Any
) -> None:
    let_hashes_overlap(monkeypatch)
    portal.person(ADA)
    assert log_in(portal.at(HOME)) == 200
    places = [portal.at(HOME), portal.at(STRANGER)]
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda number: log_in(places[number % 2], ADA, "wrong"), range(48)))
    assert codes.count(401) <= 20
    assert codes.count(401) + codes.count(429) == 48


def test_failures_at_once_do_not_wait_for_each_other_in_a_circle(portal: Portal) -> None:
    portal.person(ADA)
    assert log_in(portal.at(HOME)) == 200
    pool = portal.client.app.state.database.pool  # type: ignore[attr-defined]

    async def at_once() -> list[int]:
        known = repository.FailedLogins(pool, "203.0.113.0/24")
        return await asyncio.gather(*(known.record(ADA) for _ in range(8)))

    for _ in range(5):
        fail(portal.at(HOME), 1)
        portal.sql("UPDATE failed_logins SET last_failed_at = now() - interval '25 hours'")
        assert portal.client.portal.call(at_once) == [0] * 8  # type: ignore[union-attr]
        portal.sql("UPDATE login_networks SET failures = 0, delayed_until = NULL")


def test_two_processes_share_the_counts_and_the_networks(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme") as one, open_client(limits=ROOMY) as second:
        other = Portal(second, tenants)
        one.person(ADA)
        assert log_in(one.at(HOME)) == 200
        codes = [log_in(portal.at(STRANGER), ADA, "wrong") for portal in (one, other) * 5]
        assert codes == [401] * 10
        assert [log_in(portal.at(STRANGER)) for portal in (one, other)] == [429, 429]
        assert [log_in(portal.at(HOME)) for portal in (one, other)] == [200, 200]


@pytest.mark.parametrize(("trusted", "status"), [((), 429), (("10.0.0.0/8",), 200)])
def test_the_network_comes_from_trusted_proxies_only(
    open_client: Any, tenants: Any, trusted: tuple[str, ...], status: int
) -> None:
    limits = ROOMY.model_copy(update={"trusted_proxies": trusted})
    with running_portal(open_client, tenants, "acme", limits=limits) as portal:
        portal.person(ADA)
        assert log_in(portal.at(HOME)) == 200
        fail(portal.at(STRANGER), 10)
        body = {"email": ADA, "password": PASSWORD}
        behind: TestClient = portal.at("10.0.0.1").client
        answer = behind.post("/api/auth/login", json=body, headers={"x-forwarded-for": HOME})
        assert answer.status_code == status


def test_who_signs_up_is_known_where_it_did(open_client: Any, tenants: Any, configuration: Any) -> None:
    auth = configuration.auth.model_copy(update={"registration_tenant": "acme"})
    with running_portal(open_client, tenants, "acme", auth=auth) as portal:
        new = {"email": ADA, "password": PASSWORD}
        signed_up = portal.at(HOME).client.post("/auth/v1/signup", json=new)
        assert signed_up.status_code == 200
        assert portal.client.get("/auth/v1/user", headers=bearer(signed_up.json()["access_token"])).status_code == 200
        fail(portal.at(STRANGER), 10)
        assert log_in(portal.at(ALSO_HOME)) == 200


def test_passwords_that_wait_for_a_hash_hold_no_connection(open_client: Any, tenants: Any, configuration: Any) -> None:
    auth = configuration.auth.model_copy(update={"registration_tenant": "acme"})
    with running_portal(open_client, tenants, "acme", auth=auth) as portal:
        portal.person(ADA)
        boss = portal.admin()
        state: Any = portal.client.app.state  # type: ignore[attr-defined]
        matches, hashed, held = state.passwords.matches, state.passwords.hash, []

        async def matches_meanwhile(*given: Any) -> Any:
            held.append(state.database.engine.pool.checkedout())
            return await matches(*given)

        async def hashed_meanwhile(*given: Any) -> Any:
            held.append(state.database.engine.pool.checkedout())
            return await hashed(*given)

        state.passwords.matches, state.passwords.hash = matches_meanwhile, hashed_meanwhile
        assert log_in(portal) == 200
        change = {"password": "another password", "current_password": PASSWORD}
        assert portal.client.put("/auth/v1/user", json=change, headers=boss).status_code == 200
        for path, email in (("/api/auth/register", "b@acme.example"), ("/auth/v1/signup", "c@acme.example")):
            assert portal.client.post(path, json={"email": email, "password": PASSWORD}).status_code in (200, 201)
        person = {"email": "d@acme.example", "password": PASSWORD}
        made = portal.client.post("/api/users", json=person, headers=boss).json()["id"]
        change = {"password": "another password", "role": "admin", "name": "Dee"}
        assert portal.client.put(f"/api/users/{made}", json=change, headers=boss).json()["name"] == "Dee"
        assert held == [0] * 8
