"""Passwords that are guessed early are refused wherever a password is set."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from api.database.scope import TenantScope
from api.users.common_passwords import is_common
from api.users.passwords import MAX_LENGTH, Passwords, WeakPassword
from api.users.service import create_admin, set_password
from configs.auth import AuthSettings
from tests.api.conftest import SECRET
from tests.fixtures.passwords import hash_password
from tests.fixtures.portal import PASSWORD, Portal, bearer, running_portal

ADA = "ada.lovelace@engines.example"
COMMON = [
    *("password", "12345678", "qwertyuiop", "iloveyou", "Passw0rd", "P@ssw0rd1", "trustno1", "letmein123", "sunshine1"),
    *("drowssap", "aaaaaaaa", "abcdefgh", "abcabcabcabc", "passwordpassword", "PASSWORD1", "password2026", "baseball1"),
    *("x" * MAX_LENGTH, "ab" * 128, "password" * 32, "password123456789012345678"),
]
FINE = [
    *(
        "secure_password",
        PASSWORD,
        "a password of the tests",
        "another password",
        "the second password",
        "tr0ub4dor&3x",
    ),
    *("vK3mPq9zLw2x", "Hund-Katze-Maus", "пароль из сказки", "x7" + "q" * 20 + "Lm9!vR", "vK3mPq9zLw2x" * 20),
]


@pytest.mark.parametrize("password", COMMON)
def test_common_passwords_and_simple_variants_are_known(password: str) -> None:
    assert is_common(password)


@pytest.mark.parametrize("password", FINE)
def test_others_are_not(password: str) -> None:
    assert not is_common(password)


@pytest.mark.parametrize(
    "password",
    [ADA, ADA.upper(), "ada.lovelace", "lovelace1", "Lovelace", "l0vel4ce", "engines1", "Countess", "acme-shop"],
)
def test_what_is_known_of_the_user_is_common_too(password: str) -> None:
    about = (ADA, "Ada Countess", "acme-shop")
    assert is_common(password, about)
    assert not is_common(password + " vK3mPq9z", about) or password == ADA


def test_what_is_known_of_one_user_says_nothing_of_another() -> None:
    assert is_common("zyxwolframite", ("zyxwolframite",))
    assert not is_common("zyxwolframite")


def weak(answer: Any) -> tuple[int, Any]:
    body = answer.json()
    assert "iloveyou1" not in answer.text
    return answer.status_code, body.get("weak_password", {}).get("reasons") or body["errors"]


def test_every_route_that_sets_a_password_refuses_it(open_client: Any, tenants: Any) -> None:
    auth = AuthSettings(jwt_secret=SecretStr(SECRET), registration_tenant="acme")
    with running_portal(open_client, tenants, "acme", auth=auth) as portal:
        common = {"email": "new@acme.example", "name": "New", "password": "iloveyou1"}
        boss, client = portal.admin(), portal.client
        ada = portal.person(ADA)
        own = portal.login(ADA)
        message = "it is one of the first that are guessed: choose a longer or less common one"
        as_problem = (400, [{"field": "password", "message": message}])
        assert weak(client.post("/api/auth/register", json=common)) == as_problem
        assert weak(client.post("/api/users", json=common, headers=boss)) == as_problem
        assert weak(client.put(f"/api/users/{ada}", json={"password": "iloveyou1"}, headers=boss)) == as_problem
        as_gotrue = (422, ["pwned"])
        assert weak(client.post("/auth/v1/signup", json=common)) == as_gotrue
        change = {"password": "iloveyou1", "current_password": PASSWORD}
        assert weak(client.put("/auth/v1/user", json=change, headers=own)) == as_gotrue
        assert portal.sql("SELECT count(*) FROM users") == [(2,)]
        assert portal.client.get("/auth/v1/user", headers=bearer(portal.grant(ADA)["access_token"])).status_code == 200


def test_the_command_line_refuses_it_too(portal: Portal) -> None:
    portal.person(ADA)
    for work in (
        lambda session: create_admin(session, Passwords(), TenantScope("acme"), "b@acme.example", "iloveyou1"),
        lambda session: set_password(session, Passwords(), ADA, "iloveyou1"),
    ):
        with pytest.raises(WeakPassword):
            portal.tenants.run(work)


def test_a_common_password_of_before_still_logs_in(portal: Portal) -> None:
    portal.person(ADA)
    portal.sql("UPDATE users SET password_hash = %s", hash_password("iloveyou1"))
    assert json.dumps(portal.grant(ADA, "iloveyou1"))
