"""What ends a session: refresh tokens end at once, access tokens within 5 seconds."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest

from api.sessions.repository import MAX_ROTATIONS
from api.tenants.service import delete_tenant
from api.users.passwords import Passwords
from api.users.service import set_password
from configs.api import LimitSettings
from tests.api.conftest import SECRET
from tests.fixtures.clock import stop_the_minute
from tests.fixtures.portal import PASSWORD, ROOMY, Portal, bearer, running_portal, within_5_seconds

ADA = "ada@acme.example"


def asks(portal: Portal, headers: dict[str, str]) -> Any:
    return lambda: portal.client.get("/auth/v1/user", headers=headers)


def error_code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error_code"]


def test_a_refresh_token_is_good_once_and_gives_the_next_one(portal: Portal) -> None:
    portal.person(ADA, "admin")
    first = portal.grant(ADA)
    second = portal.refresh(first["refresh_token"]).json()
    third = portal.refresh(second["refresh_token"]).json()
    assert len({grant["refresh_token"] for grant in (first, second, third)}) == 3
    assert len({grant["access_token"] for grant in (first, second, third)}) == 3
    sessions = {
        jwt.decode(grant["access_token"], SECRET, ["HS256"], audience="authenticated")["session_id"]
        for grant in (first, second, third)
    }
    assert len(sessions) == 1
    assert third.keys() == first.keys()
    assert asks(portal, bearer(third["access_token"]))().status_code == 200
    assert portal.sql("SELECT count(*) FROM sessions") == [(1,)]  # a session costs one row however long it lasts


def test_a_reused_refresh_token_revokes_its_family_and_no_other(portal: Portal) -> None:
    portal.person(ADA)
    other_device = portal.grant(ADA)
    first = portal.grant(ADA)
    second = portal.refresh(first["refresh_token"]).json()
    assert error_code(portal.after_grace(first["refresh_token"])) == (400, "refresh_token_already_used")
    assert error_code(portal.refresh(second["refresh_token"])) == (400, "refresh_token_not_found")
    within_5_seconds(401, asks(portal, bearer(second["access_token"])))
    assert portal.refresh(other_device["refresh_token"]).status_code == 200


def tokens_of(answer: Any) -> tuple[str, str]:
    assert answer.status_code == 200, answer.text
    grant = answer.json()
    return grant["access_token"], grant["refresh_token"]


def test_all_who_refresh_with_the_same_token_at_once_get_the_same_two_tokens(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme") as one, open_client(limits=ROOMY) as second:
        other = Portal(second, tenants)  # two processes of the API
        one.person(ADA)
        first = one.grant(ADA)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda process: process.refresh(first["refresh_token"]), [one, other] * 6))
        given = {tokens_of(answer) for answer in answers}
        assert len(given) == 1
        assert {answer.json()["expires_at"] for answer in answers} == {answers[0].json()["expires_at"]}
        ((access_token, refresh_token),) = given
        assert asks(other, bearer(access_token))().status_code == 200
        assert len({tokens_of(process.refresh(refresh_token)) for process in (one, other)}) == 1


def test_a_token_of_two_generations_ago_gives_its_own_answer_again_within_its_ten_seconds(portal: Portal) -> None:
    portal.person(ADA)
    first = portal.grant(ADA)["refresh_token"]
    answers = [tokens_of(portal.refresh(first))]
    for _ in range(3):
        answers.append(tokens_of(portal.refresh(answers[-1][1])))
    used = [first, *(refresh_token for _, refresh_token in answers[:-1])]
    assert [tokens_of(portal.refresh(token)) for token in used] == answers
    portal.sql("UPDATE sessions SET rotations[1] = rotations[1] - interval '11 seconds'")
    assert tokens_of(portal.refresh(used[1])) == answers[1]
    assert error_code(portal.refresh(used[0])) == (400, "refresh_token_already_used")
    assert portal.refresh(answers[-1][1]).status_code == 400


def test_the_stored_times_of_a_session_are_bounded(portal: Portal) -> None:
    portal.person(ADA)
    token = portal.grant(ADA)["refresh_token"]
    for _ in range(MAX_ROTATIONS + 3):
        token = tokens_of(portal.refresh(token))[1]
    assert portal.sql("SELECT cardinality(rotations), generation FROM sessions") == [(MAX_ROTATIONS, MAX_ROTATIONS + 3)]


def test_nothing_of_the_tokens_is_stored(portal: Portal) -> None:
    portal.person(ADA)
    grant = portal.refresh(portal.grant(ADA)["refresh_token"]).json()
    (row,) = portal.sql("SELECT sessions::text FROM sessions")
    assert grant["refresh_token"] not in row[0]
    jti = jwt.decode(grant["access_token"], SECRET, ["HS256"], audience="authenticated")["jti"]
    assert jti not in row[0]


@pytest.mark.parametrize("ending", ["logout", "password", "role"])
def test_the_grace_of_a_refresh_token_ends_with_its_session(portal: Portal, ending: str) -> None:
    ada, boss = portal.person(ADA, "admin"), portal.admin()
    first = portal.grant(ADA)
    second = portal.refresh(first["refresh_token"]).json()
    if ending == "logout":
        portal.client.post("/auth/v1/logout", headers=bearer(second["access_token"]))
    else:
        change = {"password": "another password"} if ending == "password" else {"role": "user"}
        assert portal.client.put(f"/api/users/{ada}", json=change, headers=boss).status_code == 200
    assert error_code(portal.refresh(first["refresh_token"])) == (400, "refresh_token_not_found")


def test_refresh_tokens_that_are_none_are_refused(portal: Portal) -> None:
    portal.person(ADA)
    token = portal.grant(ADA)["refresh_token"]
    forged = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    for bad in ("", "x", "é" * 70, forged, token + "A", token[:40], "A" * 70, "=" * 70):
        assert error_code(portal.refresh(bad)) == (400, "refresh_token_not_found"), bad
    assert portal.refresh(token).status_code == 200  # nobody can end a session by guessing


def test_a_session_that_nobody_refreshes_ends(portal: Portal) -> None:
    portal.person(ADA)
    grant = portal.grant(ADA)
    portal.sql("UPDATE sessions SET expires_at = now() - interval '1 second'")
    assert error_code(portal.refresh(grant["refresh_token"])) == (400, "refresh_token_not_found")
    within_5_seconds(401, asks(portal, bearer(grant["access_token"])))
    portal.login(ADA)
    assert portal.sql("SELECT count(*) FROM sessions") == [(1,)]  # the one that is over was cleared away


@pytest.mark.parametrize(
    ("scope", "dead"),
    [(None, {"here", "there"}), ("global", {"here", "there"}), ("local", {"here"}), ("others", {"there"})],
)
def test_logging_out_ends_the_sessions_of_its_scope(portal: Portal, scope: str | None, dead: set[str]) -> None:
    portal.person(ADA)
    portal.person("bo@acme.example")
    grants = {"here": portal.grant(ADA), "there": portal.grant(ADA)}
    unconcerned = portal.grant("bo@acme.example")
    headers = {name: bearer(grant["access_token"]) for name, grant in grants.items()}
    assert [asks(portal, header)().status_code for header in headers.values()] == [200, 200]
    params = {} if scope is None else {"scope": scope}
    out = portal.client.post("/auth/v1/logout", params=params, headers=headers["here"])
    assert (out.status_code, out.content) == (204, b"")
    for name in dead:
        assert portal.refresh(grants[name]["refresh_token"]).status_code == 400
        within_5_seconds(401, asks(portal, headers[name]))
    for name in set(grants) - dead:
        assert asks(portal, headers[name])().status_code == 200
        assert portal.refresh(grants[name]["refresh_token"]).status_code == 200
    assert portal.refresh(unconcerned["refresh_token"]).status_code == 200


def test_a_logout_of_no_scope_is_400_and_of_nobody_401(portal: Portal) -> None:
    portal.person(ADA)
    headers = portal.login(ADA)
    bad = portal.client.post("/auth/v1/logout", params={"scope": "all"}, headers=headers)
    assert error_code(bad) == (400, "validation_failed")
    assert error_code(portal.client.post("/auth/v1/logout")) == (401, "no_authorization")


def test_a_demoted_admin_loses_the_role_within_5_seconds_and_its_refresh_tokens_at_once(portal: Portal) -> None:
    ada = portal.person(ADA, "admin")
    boss = portal.admin()
    grant = portal.grant(ADA)
    headers = bearer(grant["access_token"])
    assert portal.client.get("/api/users", headers=headers).status_code == 200
    assert portal.client.put(f"/api/users/{ada}", json={"role": "user"}, headers=boss).status_code == 200
    assert portal.refresh(grant["refresh_token"]).status_code == 400
    within_5_seconds(403, lambda: portal.client.get("/api/users", headers=headers))
    assert portal.client.get(f"/api/users/{ada}", headers=headers).status_code == 200
    # The other way around, too.
    portal.client.put(f"/api/users/{ada}", json={"role": "admin"}, headers=boss)
    within_5_seconds(200, lambda: portal.client.get("/api/users", headers=headers))


@pytest.mark.parametrize(
    ("method", "suffix", "body"),
    [("PUT", "", {"isActive": False}), ("PATCH", "/toggle-status", None), ("DELETE", "", None)],
)
def test_who_is_disabled_or_deleted_is_out_within_5_seconds(
    portal: Portal, method: str, suffix: str, body: Any
) -> None:
    ada = portal.person(ADA)
    boss = portal.admin()
    grant = portal.grant(ADA)
    headers = bearer(grant["access_token"])
    assert asks(portal, headers)().status_code == 200
    assert portal.client.request(method, f"/api/users/{ada}{suffix}", json=body, headers=boss).is_success
    assert portal.refresh(grant["refresh_token"]).status_code == 400
    within_5_seconds(401, asks(portal, headers))
    if method != "DELETE":  # what was ended does not come back with the activity
        portal.client.put(f"/api/users/{ada}", json={"isActive": True}, headers=boss)
        assert portal.refresh(grant["refresh_token"]).status_code == 400
        assert asks(portal, portal.login(ADA))().status_code == 200


def test_a_password_that_an_admin_changes_ends_all_sessions(portal: Portal) -> None:
    ada = portal.person(ADA)
    boss = portal.admin()
    grant = portal.grant(ADA)
    changed = portal.client.put(f"/api/users/{ada}", json={"password": "another password"}, headers=boss)
    assert changed.status_code == 200
    assert portal.refresh(grant["refresh_token"]).status_code == 400
    within_5_seconds(401, asks(portal, bearer(grant["access_token"])))
    portal.login(ADA, "another password")


def test_a_password_that_the_command_line_changes_ends_all_sessions(portal: Portal) -> None:
    portal.person(ADA)
    grant = portal.grant(ADA)
    portal.tenants.run(lambda session: set_password(session, Passwords(), ADA, "another password"))
    assert portal.refresh(grant["refresh_token"]).status_code == 400


def test_changes_of_other_attributes_end_nothing(portal: Portal) -> None:
    ada = portal.person(ADA)
    boss = portal.admin()
    grant = portal.grant(ADA)
    same = {"email": ADA, "name": "Ada L.", "role": "user", "isActive": True}
    assert portal.client.put(f"/api/users/{ada}", json=same, headers=boss).status_code == 200
    assert portal.refresh(grant["refresh_token"]).status_code == 200


def test_with_its_tenant_a_session_ends(portal: Portal) -> None:
    portal.person(ADA)
    grant = portal.grant(ADA)
    portal.tenants.run(lambda session: delete_tenant(session, "acme"))
    assert portal.refresh(grant["refresh_token"]).status_code == 400
    login = portal.client.post("/api/auth/login", json={"email": ADA, "password": PASSWORD})
    assert login.status_code == 401
    within_5_seconds(401, asks(portal, bearer(grant["access_token"])))


def test_the_portals_own_login_begins_a_session_that_can_be_logged_out(portal: Portal) -> None:
    portal.person(ADA)
    token = portal.client.post("/api/auth/login", json={"email": ADA, "password": PASSWORD}).json()["token"]
    assert asks(portal, bearer(token))().status_code == 200
    assert portal.client.post("/auth/v1/logout", headers=bearer(token)).status_code == 204
    within_5_seconds(401, asks(portal, bearer(token)))


def test_each_user_has_its_own_count_administrator_or_not(open_client: Any, tenants: Any, monkeypatch: Any) -> None:
    assert LimitSettings.model_fields["per_jwt"].default == 200
    stop_the_minute(monkeypatch)
    with running_portal(open_client, tenants, "acme", limits=LimitSettings(per_jwt=3, per_ip=1_000)) as portal:
        portal.person(ADA)
        for headers in (portal.admin(), portal.login(ADA)):
            answers = [asks(portal, headers)() for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"3"}
            assert error_code(answers[3]) == (429, "over_request_rate_limit")
