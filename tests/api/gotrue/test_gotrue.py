"""`/auth/v1`: the responses of GoTrue's routes."""

import time
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from configs.api import LimitSettings
from configs.auth import AuthSettings
from tests.api.conftest import SECRET
from tests.fixtures.clock import stop_the_minute
from tests.fixtures.portal import PASSWORD, Portal, bearer, running_portal, within_5_seconds

ADA = "ada@acme.example"
USER_FIELDS = {
    *("id", "aud", "role", "email", "app_metadata", "user_metadata", "created_at", "updated_at"),
    *("last_sign_in_at", "identities"),
}
OPEN = AuthSettings(jwt_secret=SecretStr(SECRET), registration_tenant="acme")


def refused(answer: Any, status: int, error_code: str) -> Any:
    """The problem, which must have the members of ours and of GoTrue's."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["error_code"]) == (status, error_code), answer.text
    assert {"type", "title", "status", "detail", "traceId", "code", "error_code", "msg"} <= problem.keys()
    assert (problem["status"], problem["code"], problem["msg"]) == (status, status, problem["detail"])
    assert int(answer.headers["content-length"]) == len(answer.content)
    return problem


def test_a_password_gives_tokens_and_the_user_in_gotrues_shape(portal: Portal) -> None:
    ada = portal.person("Ada@acme.example", "admin")
    before = int(time.time())
    grant = portal.grant(ADA)
    assert grant.keys() == {"access_token", "token_type", "expires_in", "expires_at", "refresh_token", "user"}
    assert (grant["token_type"], grant["expires_in"]) == ("bearer", 3600)
    assert before + 3600 <= grant["expires_at"] <= int(time.time()) + 3600
    user = grant["user"]
    assert user.keys() >= USER_FIELDS
    assert (user["id"], user["aud"], user["role"], user["email"]) == (ada, "authenticated", "admin", "Ada@acme.example")
    assert user["app_metadata"] == {
        "provider": "email",
        "providers": ["email"],
        "tenant_id": "acme",
        "role": "admin",
    }
    assert user["user_metadata"] == {"name": "Ada"}
    assert [identity["provider"] for identity in user["identities"]] == ["email"]
    for moment in ("created_at", "updated_at", "last_sign_in_at"):
        assert user[moment].endswith("Z")
    assert "argon2" not in str(grant)
    claims = jwt.decode(grant["access_token"], SECRET, ["HS256"], audience="authenticated")
    assert claims.keys() == {"iss", "sub", "aud", "role", "tenant_id", "session_id", "iat", "exp", "jti"}
    assert (claims["iss"], claims["sub"], claims["tenant_id"]) == ("recommendai", ada, "acme")
    assert claims["exp"] == grant["expires_at"]
    own = portal.client.get("/auth/v1/user", headers=bearer(grant["access_token"]))
    assert (own.status_code, own.json()) == (200, user)


def test_whatever_is_wrong_about_a_login_is_invalid_credentials(portal: Portal) -> None:
    portal.person(ADA)
    portal.person("off@acme.example", isActive=False)
    for email, password in ((ADA, "wrong"), ("nobody@acme.example", PASSWORD), ("off@acme.example", PASSWORD)):
        answer = portal.client.post("/auth/v1/token?grant_type=password", json={"email": email, "password": password})
        assert "retry-after" not in answer.headers
        refused(answer, 400, "invalid_credentials")


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("?grant_type=password", {}),
        ("?grant_type=password", {"email": ADA}),
        ("?grant_type=password", {"phone": "123", "password": PASSWORD}),
        ("?grant_type=refresh_token", {"email": ADA, "password": PASSWORD}),
        ("?grant_type=magic", {"email": ADA, "password": PASSWORD}),
        ("", {"email": ADA, "password": PASSWORD}),
        ("?grant_type=password", []),
        ("?grant_type=password", {"email": "a\0", "password": PASSWORD}),
    ],
)
def test_requests_of_no_sense_are_validation_failed(portal: Portal, query: str, body: Any) -> None:
    problem = refused(portal.client.post(f"/auth/v1/token{query}", json=body), 400, "validation_failed")
    assert problem["errors"]


def test_every_refusal_has_gotrues_members_whoever_refuses(open_client: Any, tenants: Any, monkeypatch: Any) -> None:
    stop_the_minute(monkeypatch)
    with running_portal(open_client, tenants, "acme", limits=LimitSettings(per_ip=8)) as portal:
        client = portal.client
        json = {"content-type": "application/json"}
        refused(client.get("/auth/v1/user"), 401, "no_authorization")
        refused(client.get("/auth/v1/user", headers=bearer("nonsense")), 401, "bad_jwt")
        refused(client.get("/auth/v1/nothing"), 404, "not_found")
        refused(client.get("/auth/v1/token"), 405, "unexpected_failure")
        refused(client.post("/auth/v1/token", content=b"{", headers=json), 400, "validation_failed")
        refused(client.post("/auth/v1/token", content=b"x" * 3_000_000, headers=json), 413, "validation_failed")
        refused(client.get("/auth/v1/%00"), 400, "validation_failed")
        for _ in range(10):
            last = client.get("/auth/v1/user")
        assert last.headers["retry-after"]
        refused(last, 429, "over_request_rate_limit")


def test_signing_up_is_closed_until_a_tenant_is_named(portal: Portal) -> None:
    body = {"email": "new@example.com", "password": PASSWORD}
    refused(portal.client.post("/auth/v1/signup", json=body), 403, "signup_disabled")


def test_who_signs_up_is_logged_in_as_a_user_of_the_open_tenant(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme", "other", auth=OPEN) as portal:
        body = {"email": "new@example.com", "password": PASSWORD, "data": {"name": "New", "role": "admin", "n": 1}}
        answer = portal.client.post("/auth/v1/signup", json={**body, "role": "admin"})
        assert answer.status_code == 200
        grant = answer.json()
        assert grant["user"]["role"] == grant["user"]["app_metadata"]["role"] == "user"
        assert grant["user"]["user_metadata"] == body["data"]
        headers = bearer(grant["access_token"])
        shown = portal.client.get(f"/api/users/{grant['user']['id']}", headers=headers).json()
        assert (shown["name"], shown["role"], shown["lastActiveAt"] is None) == ("New", "user", False)
        assert portal.refresh(grant["refresh_token"]).status_code == 200


def test_sign_ups_that_cannot_be_have_gotrues_codes(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme", "other", auth=OPEN) as portal:
        portal.person("taken@example.com", tenant_id="other")

        def sign_up(**change: Any) -> Any:
            body = {"email": "new@example.com", "password": PASSWORD, **change}
            return portal.client.post("/auth/v1/signup", json=body)

        taken = refused(sign_up(email="Taken@Example.com"), 422, "user_already_exists")
        assert "other" not in str(taken)
        weak = refused(sign_up(password="short"), 422, "weak_password")
        assert weak["weak_password"] == {"reasons": ["length"]}
        refused(sign_up(email="nonsense"), 400, "email_address_invalid")
        refused(sign_up(data={"a": "\0"}), 400, "validation_failed")
        refused(sign_up(data={"a": "x" * 20_000}), 400, "validation_failed")
        refused(sign_up(data={"name": "x" * 2_000}), 400, "validation_failed")
        assert portal.sql("SELECT count(*) FROM users") == [(1,)]


def change(portal: Portal, headers: dict[str, str], **body: Any) -> Any:
    return portal.client.put("/auth/v1/user", json=body, headers=headers)


def test_a_new_password_needs_the_current_one_and_revokes_every_refresh_token(portal: Portal) -> None:
    portal.person(ADA)
    here, there = portal.grant(ADA), portal.grant(ADA)
    headers = bearer(here["access_token"])
    refused(change(portal, headers, password="another password"), 400, "validation_failed")
    refused(change(portal, headers, password="another password", current_password="no"), 400, "invalid_credentials")
    refused(change(portal, headers, password="short", current_password=PASSWORD), 422, "weak_password")
    refused(change(portal, headers, password=PASSWORD, current_password=PASSWORD), 422, "same_password")
    assert portal.refresh(here["refresh_token"]).status_code == 200
    here = portal.grant(ADA)
    headers = bearer(here["access_token"])
    changed = change(portal, headers, password="another password", current_password=PASSWORD)
    assert (changed.status_code, changed.json()["email"]) == (200, ADA)
    for grant in (here, there):
        assert portal.refresh(grant["refresh_token"]).status_code == 400
    within_5_seconds(401, lambda: portal.client.get("/auth/v1/user", headers=bearer(there["access_token"])))
    assert portal.client.get("/auth/v1/user", headers=headers).status_code == 200  # who changed it stays
    portal.grant(ADA, "another password")
    old = portal.client.post("/auth/v1/token?grant_type=password", json={"email": ADA, "password": PASSWORD})
    refused(old, 400, "invalid_credentials")


def test_wrong_current_passwords_count_as_failed_logins(portal: Portal) -> None:
    portal.person(ADA)
    headers = portal.login(ADA)
    for _ in range(10):
        answer = change(portal, headers, password="another password", current_password="guess")
        refused(answer, 400, "invalid_credentials")
    answer = change(portal, headers, password="another password", current_password=PASSWORD)
    refused(answer, 429, "over_request_rate_limit")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_new_address_needs_the_password_and_has_to_be_free(portal: Portal) -> None:
    portal.person(ADA)
    portal.person("taken@other.example", tenant_id="other")
    headers = portal.login(ADA)
    refused(change(portal, headers, email="new@acme.example"), 400, "validation_failed")
    taken = change(portal, headers, email="TAKEN@other.example", current_password=PASSWORD)
    refused(taken, 422, "email_exists")
    assert change(portal, headers, email="new@acme.example", current_password=PASSWORD).status_code == 200
    portal.grant("new@acme.example")


def test_what_a_user_says_of_itself_is_merged_and_is_no_authority(portal: Portal) -> None:
    portal.person(ADA, name=None)
    headers = portal.login(ADA)
    change(portal, headers, data={"colour": "red", "role": "admin", "old": 1})
    changed = change(portal, headers, data={"old": None, "theme": {"dark": True}}).json()
    assert changed["user_metadata"] == {"colour": "red", "role": "admin", "theme": {"dark": True}}
    assert changed["role"] == changed["app_metadata"]["role"] == "user"
    assert portal.client.get("/api/users", headers=headers).status_code == 403
    for index in range(3):
        last = change(portal, headers, data={f"k{index}": "x" * 4_000})
    refused(last, 400, "validation_failed")


def test_a_key_is_no_person(portal: Portal) -> None:
    refused(portal.client.get("/auth/v1/user", headers=portal.tenants.key("acme")), 401, "no_authorization")


def confirmed(portal: Portal, email: str, password: str = PASSWORD) -> Any:
    return portal.grant(email, password)["user"]["email_confirmed_at"]


def test_an_address_that_nobody_confirmed_is_not_said_to_be(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme", auth=OPEN) as portal:
        boss = portal.admin()
        assert confirmed(portal, "admin@acme.example").endswith("Z")
        # Who registers or signs up may give any address.
        signed_up = portal.client.post("/auth/v1/signup", json={"email": ADA, "password": PASSWORD}).json()
        assert signed_up["user"]["email_confirmed_at"] is None
        registered = {"email": "bo@acme.example", "password": PASSWORD, "name": "Bo"}
        assert portal.client.post("/api/auth/register", json=registered).status_code == 201
        assert confirmed(portal, "bo@acme.example") is None
        # An administrator vouches for the users it creates and the addresses it sets.
        created = {"email": "cy@acme.example", "password": PASSWORD}
        assert portal.client.post("/api/users", json=created, headers=boss).status_code == 201
        assert confirmed(portal, "cy@acme.example").endswith("Z")
        ada = signed_up["user"]["id"]
        for change, is_confirmed in (({"name": "Ada", "email": ADA}, False), ({"email": "ada@new.example"}, True)):
            assert portal.client.put(f"/api/users/{ada}", json=change, headers=boss).status_code == 200
            assert (confirmed(portal, change["email"]) is not None) is is_confirmed
        # Nobody has confirmed the address that a user changes by itself.
        own = {"email": "ada@newer.example", "current_password": PASSWORD}
        headers = portal.login("ada@new.example")
        assert portal.client.put("/auth/v1/user", json=own, headers=headers).json()["email_confirmed_at"] is None
