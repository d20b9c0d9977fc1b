"""Tokens of external GoTrue servers: which are accepted, for which tenants, and which claims are ignored."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from jwt.algorithms import RSAAlgorithm
from pydantic import SecretStr, ValidationError

from api.app import Configuration, create_app
from configs.api import LimitSettings
from configs.auth import AuthSettings
from configs.issuers import ExternalIssuer
from tests.api.conftest import SECRET
from tests.fixtures.clock import stop_the_minute
from tests.fixtures.issuer import ISSUER, Published, SigningKey, claims, publishing
from tests.fixtures.live import ROOT
from tests.fixtures.portal import Portal, bearer, running_portal, within_5_seconds

SHARED = "the secret of somebody else's GoTrue, long enough"
RSA = SigningKey.make("rsa-1", "RS256")
EC = SigningKey.make("ec-1", "ES256")


def trusting(**issuer: Any) -> AuthSettings:
    trusted = {"issuer": ISSUER, "algorithms": ["HS256"], "tenants": ["acme"], **issuer}
    if "jwks_url" not in trusted:
        trusted.setdefault("key", SHARED)
    return AuthSettings(jwt_secret=SecretStr(SECRET), external_issuers=[trusted])


def asymmetric(published: Published) -> AuthSettings:
    return trusting(algorithms=["RS256", "ES256"], jwks_url=published.url)


def sign(payload: dict[str, Any], secret: str = SHARED) -> str:
    return jwt.encode(payload, secret, "HS256")


@contextmanager
def trusted_portal(open_client: Any, tenants: Any, auth: AuthSettings) -> Iterator[Portal]:
    with running_portal(open_client, tenants, "acme", "other", auth=auth) as portal:
        yield portal


@pytest.fixture
def by_secret(open_client: Any, tenants: Any) -> Iterator[Portal]:
    with trusted_portal(open_client, tenants, trusting()) as portal:
        yield portal


@pytest.fixture
def published() -> Iterator[Published]:
    with publishing(RSA, EC) as published:
        yield published


@pytest.fixture
def by_key_set(open_client: Any, tenants: Any, published: Published) -> Iterator[Portal]:
    with trusted_portal(open_client, tenants, asymmetric(published)) as portal:
        yield portal


def user(portal: Portal, token: str) -> Any:
    return portal.client.get("/auth/v1/user", headers=bearer(token))


def users(portal: Portal, token: str) -> int:
    """The status of a route for administrators."""
    return int(portal.client.get("/api/users", headers=bearer(token)).status_code)


def test_a_token_signed_with_the_shared_secret_opens_the_tenant_it_names(by_secret: Portal) -> None:
    answer = user(by_secret, sign(claims(role="admin")))
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["email"]) == ("person-1", "person-1@example.com")
    assert answer.json()["app_metadata"]["tenant_id"] == "acme"
    assert answer.headers["x-ratelimit-limit"]
    assert users(by_secret, sign(claims(role="admin"))) == 200
    # Our own tokens go on.
    assert user(by_secret, by_secret.admin()["Authorization"].split()[1]).status_code == 200


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_a_token_signed_with_a_published_key_opens_the_tenant_it_names(by_key_set: Portal, key: SigningKey) -> None:
    assert users(by_key_set, key.sign(claims(role="admin"))) == 200


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_a_public_key_in_the_settings_does_as_well(open_client: Any, tenants: Any, key: SigningKey) -> None:
    auth = trusting(algorithms=[key.algorithm], key=key.pem)
    with trusted_portal(open_client, tenants, auth) as portal:
        assert users(portal, key.sign(claims(role="admin"))) == 200
        assert users(portal, sign(claims(role="admin"), SHARED)) == 401


def test_a_rotated_key_is_found_at_once_and_the_withdrawn_one_forgotten(
    by_key_set: Portal, published: Published
) -> None:
    assert user(by_key_set, RSA.sign(claims())).status_code == 200
    rotated = SigningKey.make("rsa-2", "RS256")
    published.publish(rotated)
    assert user(by_key_set, rotated.sign(claims())).status_code == 200
    assert user(by_key_set, RSA.sign(claims())).status_code == 401
    asked = published.requests
    for _ in range(20):
        assert user(by_key_set, rotated.sign(claims())).status_code == 200
    assert published.requests == asked


def test_unknown_key_ids_are_refused_and_do_not_flood_the_issuer(by_key_set: Portal, published: Published) -> None:
    stranger = SigningKey.make("made-up", "RS256")
    for number in range(20):
        assert user(by_key_set, stranger.sign(claims(), kid=f"made-up-{number}")).status_code == 401
    assert published.requests <= 7
    # The id alone is not enough.
    assert user(by_key_set, stranger.sign(claims(), kid="rsa-1")).status_code == 401
    assert user(by_key_set, jwt.encode(claims(), RSA.private, "RS256")).status_code == 401  # it names none
    assert user(by_key_set, RSA.sign(claims())).status_code == 200


def test_while_the_keys_cannot_be_read_it_is_a_503_and_known_ones_go_on(
    open_client: Any, tenants: Any, published: Published
) -> None:
    published.status = 500
    with trusted_portal(open_client, tenants, asymmetric(published)) as portal:
        for _ in range(5):
            assert user(portal, RSA.sign(claims())).status_code == 503
        assert published.requests == 1
        assert portal.client.get("/api/items", headers=portal.tenants.key("acme")).status_code == 200
        assert user(portal, portal.admin()["Authorization"].split()[1]).status_code == 200
    published.status = 200
    with running_portal(open_client, tenants, auth=asymmetric(published)) as portal:
        assert user(portal, RSA.sign(claims())).status_code == 200
        published.status = 500
        assert user(portal, EC.sign(claims())).status_code == 200
        assert user(portal, EC.sign(claims(), kid="new")).status_code == 401
        assert user(portal, RSA.sign(claims())).status_code == 200


@pytest.mark.parametrize(
    "keys",
    [
        [{"kty": "oct", "kid": "rsa-1", "k": "c2VjcmV0", "alg": "HS256"}],
        [{**RSA.jwk, "use": "enc"}],
        [{**RSA.jwk, "kid": None}, 3, {"kty": "RSA", "kid": "rsa-1"}],
        [{**RSA.jwk, "alg": "RS512"}],
        [],
    ],
    ids=["secret", "for encryption", "incomplete", "other algorithm", "none"],
)
def test_published_keys_of_other_kinds_are_passed_over(
    open_client: Any, tenants: Any, published: Published, keys: list[Any]
) -> None:
    published.document = {"keys": [*keys, EC.jwk]}
    with trusted_portal(open_client, tenants, asymmetric(published)) as portal:
        assert user(portal, RSA.sign(claims())).status_code == 401
        assert user(portal, EC.sign(claims())).status_code == 200


def _unsigned(payload: dict[str, Any], **header: Any) -> str:
    return jwt.encode(payload, None, "none", headers=header)


def _signed_with_the_public_key(payload: dict[str, Any], key: str, kid: str) -> str:
    """HS256 over bytes that everybody knows. PyJWT refuses to make one, so by hand."""
    parts = [{"alg": "HS256", "typ": "JWT", "kid": kid}, payload]
    encoded = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(key.encode(), encoded, hashlib.sha256)).rstrip(b"=")
    return (encoded + b"." + signature).decode()


def test_alg_none_is_refused(by_secret: Portal) -> None:
    assert user(by_secret, _unsigned(claims(role="admin"))).status_code == 401
    unsigned = sign(claims(role="admin")).rsplit(".", 1)[0] + "."
    assert user(by_secret, unsigned).status_code == 401


def test_alg_none_is_refused_where_keys_are_published(by_key_set: Portal) -> None:
    assert user(by_key_set, _unsigned(claims(role="admin"), kid="rsa-1")).status_code == 401


def test_hs256_with_the_public_key_is_refused(
    open_client: Any, tenants: Any, by_key_set: Portal, published: Published
) -> None:
    for public in (RSA.pem, json.dumps(RSA.jwk), RSA.jwk["n"]):
        forged = _signed_with_the_public_key(claims(role="admin"), public, "rsa-1")
        assert user(by_key_set, forged).status_code == 401
    auth = trusting(algorithms=["RS256"], key=RSA.pem)
    with running_portal(open_client, tenants, auth=auth) as portal:
        assert user(portal, RSA.sign(claims())).status_code == 200
        for public in (RSA.pem, RSA.pem.strip()):
            forged = _signed_with_the_public_key(claims(role="admin"), public, "rsa-1")
            assert user(portal, forged).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
        {"aud": "others"},
        {"aud": None},
        {"aud": ["others"]},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"iss": {"a": 1}},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\u0000b"},
        {"sub": "x" * 257},
        {"app_metadata": None},
        {"app_metadata": "acme"},
        {"app_metadata": {}},
        {"app_metadata": {"tenant_id": "other"}},
        {"app_metadata": {"tenant_id": ["acme"]}},
        {"app_metadata": {"tenant_id": {"acme": 1}}},
        {"app_metadata": {}, "tenant_id": "acme"},
        {"app_metadata": {}, "user_metadata": {"tenant_id": "acme"}},
    ],
)
def test_a_token_that_is_not_quite_right_opens_nothing(by_secret: Portal, change: dict[str, Any]) -> None:
    assert user(by_secret, sign(claims(role="admin"))).status_code == 200
    payload = {name: value for name, value in (claims(role="admin") | change).items() if value is not None}
    answer = user(by_secret, sign(payload) if isinstance(payload.get("iss", ""), str) else _raw(payload))
    assert answer.status_code == 401
    assert by_secret.sql("SELECT tenant_id, id FROM users") == [("acme", "person-1")]


def _raw(payload: dict[str, Any]) -> str:
    """A rightly signed token whose claims PyJWT would not sign."""
    return jwt.api_jws.encode(json.dumps(payload).encode(), SHARED, "HS256")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.", "e30.e30.AAAA", "." * 500, "é.é.é"])
def test_what_is_no_token_opens_nothing(by_secret: Portal, token: str) -> None:
    header = {"Authorization": f"Bearer {token}".encode()}
    assert by_secret.client.get("/auth/v1/user", headers=header).status_code == 401


def test_tokens_nested_beyond_reason_open_nothing(by_secret: Portal) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 12_000).decode().rstrip("=")
    for token in (f"{deep}.e30.AAAA", sign(claims()).split(".")[0] + f".{deep}.AAAA"):
        assert user(by_secret, token).status_code == 401
    huge = _raw(claims() | {"exp": 10**400})
    assert user(by_secret, huge).status_code in (200, 401)
    for number in ("1e999", "NaN", "-1e999"):
        payload = json.dumps(claims()).replace(f'"iat": {claims()["iat"]}', f'"iat": {number}')
        assert user(by_secret, jwt.api_jws.encode(payload.encode(), SHARED, "HS256")).status_code == 401


def test_another_secret_opens_nothing(by_secret: Portal) -> None:
    for secret in ("another secret, which is long enough as well", SECRET):
        assert user(by_secret, sign(claims(role="admin"), secret)).status_code == 401


@pytest.mark.parametrize(
    "claimed",
    [
        {"role": "admin"},
        {"user_metadata": {"role": "admin", "app_metadata": {"role": "admin"}}},
        {"user_role": "admin", "is_super_admin": True},
        {"app_metadata": {"tenant_id": "acme", "role": "Admin"}},
        {"app_metadata": {"tenant_id": "acme", "role": ["admin"]}},
        {"app_metadata": {"tenant_id": "acme", "roles": ["admin"]}},
    ],
    ids=str,
)
def test_a_role_claimed_anywhere_but_in_app_metadata_is_none(by_secret: Portal, claimed: dict[str, Any]) -> None:
    token = sign(claims() | claimed)
    assert user(by_secret, token).json()["role"] == "user"
    assert users(by_secret, token) == 403


def test_an_unknown_sub_becomes_a_user_of_its_tenant(by_secret: Portal) -> None:
    admin = by_secret.admin()
    assert user(by_secret, sign(claims("new-one"))).status_code == 200
    row = by_secret.client.get("/api/users/new-one", headers=admin).json()
    assert (row["email"], row["role"], row["isActive"]) == ("new-one@example.com", "user", True)
    assert row["lastActiveAt"] is not None
    # A name for oneself is no address to log in with.
    by_secret.person("person-1@example.com", tenant_id="other")
    assert user(by_secret, sign(claims("person-1"))).status_code == 200


def test_an_end_user_whom_a_backend_made_keeps_its_row(by_secret: Portal) -> None:
    key = by_secret.tenants.key("acme")
    body = {"userId": "person-1", "itemId": "i", "interactionType": "view", "createItem": True}
    assert by_secret.client.post("/api/v1/interactions", json=body, headers=key).status_code == 201
    assert users(by_secret, sign(claims(role="admin"))) == 200
    assert by_secret.sql("SELECT id, role, email FROM users") == [("person-1", "admin", "person-1@example.com")]


def test_the_newest_token_of_the_issuer_says_the_role(by_secret: Portal) -> None:
    now = int(time.time())
    first = sign(claims(role="admin", iat=now - 60))
    assert users(by_secret, first) == 200
    later = sign(claims(iat=now - 30))
    assert user(by_secret, later).status_code == 200
    within_5_seconds(403, lambda: by_secret.client.get("/api/users", headers=bearer(first)))
    assert users(by_secret, sign(claims(role="admin", iat=now - 45))) == 403
    assert users(by_secret, sign(claims(role="admin", iat=now - 10))) == 200


def test_who_is_demoted_here_loses_the_role_within_5_seconds_whatever_new_tokens_say(by_secret: Portal) -> None:
    admin = by_secret.admin()
    token = sign(claims(role="admin"))
    assert users(by_secret, token) == 200
    demoted = by_secret.client.put("/api/users/person-1", json={"role": "user"}, headers=admin)
    assert demoted.status_code == 200
    within_5_seconds(403, lambda: by_secret.client.get("/api/users", headers=bearer(token)))
    assert users(by_secret, sign(claims(role="admin"))) == 403
    time.sleep(1.1)  # tokens count seconds
    assert users(by_secret, sign(claims(role="admin"))) == 403


def test_who_is_disabled_here_is_out_within_5_seconds(by_secret: Portal) -> None:
    admin = by_secret.admin()
    token = sign(claims())
    assert user(by_secret, token).status_code == 200
    assert by_secret.client.patch("/api/users/person-1/toggle-status", headers=admin).status_code == 200
    within_5_seconds(401, lambda: user(by_secret, token))
    assert user(by_secret, sign(claims())).status_code == 401


def test_who_is_deleted_does_not_come_back_with_the_token_it_had(by_secret: Portal) -> None:
    admin = by_secret.admin()
    token = sign(claims(role="admin"))
    assert users(by_secret, token) == 200
    assert by_secret.client.delete("/api/users/person-1", headers=admin).status_code == 204
    within_5_seconds(401, lambda: user(by_secret, token))
    assert by_secret.client.get("/api/users/person-1", headers=admin).status_code == 404
    time.sleep(1.1)  # tokens count seconds
    # Who logs in at the issuer again is somebody new.
    later = sign(claims(iat=int(time.time()) + 2))
    assert user(by_secret, later).json()["role"] == "user"


def test_a_user_with_a_password_here_is_no_more_than_it_is_here(by_secret: Portal) -> None:
    id_ = by_secret.person("bo@acme.example")
    assert users(by_secret, sign(claims(id_, role="admin"))) == 403


def test_what_belongs_to_the_issuer_is_done_there(by_secret: Portal) -> None:
    headers = bearer(sign(claims()))
    out = by_secret.client.post("/auth/v1/logout", headers=headers)
    assert (out.status_code, out.json()["error_code"]) == (403, "user_sso_managed")
    changes = {"password": "a new password", "current_password": "whatever it was"}
    changed = by_secret.client.put("/auth/v1/user", json=changes, headers=headers)
    assert (changed.status_code, changed.json()["error_code"]) == (403, "user_sso_managed")


def test_each_issuer_speaks_for_its_own_tenants(open_client: Any, tenants: Any) -> None:
    another = {
        "issuer": "https://second.example",
        "algorithms": ["HS256"],
        "key": "the secret of the second one, which is long enough",
        "tenants": ["other"],
        "audience": "portal",
    }
    auth = AuthSettings(
        jwt_secret=SecretStr(SECRET), external_issuers=[*trusting().external_issuers, ExternalIssuer(**another)]
    )
    with trusted_portal(open_client, tenants, auth) as portal:
        theirs = {"iss": another["issuer"], "aud": "portal"}
        assert user(portal, sign(claims("a"))).json()["app_metadata"]["tenant_id"] == "acme"
        good = user(portal, sign(claims("b", "other") | theirs, another["key"]))
        assert good.json()["app_metadata"]["tenant_id"] == "other"
        crossed = [
            sign(claims("c", "other")),
            sign(claims("c", "acme") | theirs, another["key"]),
            sign(claims("c", "other") | theirs),
            sign(claims("c"), another["key"]),
        ]
        assert [user(portal, token).status_code for token in crossed] == [401] * 4
        assert portal.sql("SELECT tenant_id, id FROM users ORDER BY 2") == [("acme", "a"), ("other", "b")]


def test_a_tenant_that_is_not_there_is_not_opened(open_client: Any, tenants: Any) -> None:
    with trusted_portal(open_client, tenants, trusting(tenants=["acme", "ghost"])) as portal:
        assert user(portal, sign(claims(tenant_id="ghost"))).status_code == 401


INSECURE = (
    *("http://auth.example/jwks", "HTTP://auth.example", "file:///etc/passwd", "ftp://127.0.0.1/", "recommendai", ""),
    *("http://127.0.0.1@auth.example/", "http://127.0.0.1.auth.example/", "http://localhost.auth.example/", "https://"),
    *("http://auth.example#@127.0.0.1/", "http://auth.example\\@127.0.0.1/", "http://0.0.0.0/", "http://10.0.0.1/"),
    *("https:/auth.example/", "//127.0.0.1/", " http://127.0.0.1/", "http://127.0.0.1\n.auth.example/"),
)


@pytest.mark.parametrize(
    "url", ["https://auth.example/a", "http://127.0.0.1:9999/a", "http://[::1]/", "http://localhost/"]
)
def test_addresses_with_https_or_on_loopback_are_accepted(url: str) -> None:
    (issuer,) = trusting(issuer=url, algorithms=["RS256"], jwks_url=url).external_issuers
    assert (issuer.issuer, issuer.jwks_url) == (url, url)


def test_an_insecure_issuer_stops_the_start_with_a_message_that_shows_no_secret(
    database_url: str, tmp_path: Path
) -> None:
    document = [{"issuer": "http://auth.example", "algorithms": ["HS256"], "key": SHARED, "tenants": ["acme"]}]
    done = subprocess.run(
        [sys.executable, "-m", "api", "serve", "--port", "0"],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": database_url,
            "RECOMMENDAI_STATE_DIR": str(tmp_path),
            "JWT_SECRET": SECRET,
            "EXTERNAL_ISSUERS": json.dumps(document),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "EXTERNAL_ISSUERS.0.issuer" in done.stderr and "must begin with https://" in done.stderr
    assert "Traceback" not in done.stderr and SHARED not in done.stderr


ODD_KEYS: list[Any] = [
    *(None, 5, "x", [], {}, {"kty": "RSA"}, {"kty": ["RSA"], "kid": "a"}, {"kty": "RSA", "kid": 7}),
    *({"kty": "RSA", "kid": "odd", "n": n, "e": e} for n in (5, "", "AQ", "!", None, "é") for e in ("AQAB", 7, "", [])),
    *(
        {"kty": "EC", "kid": "odd", "crv": crv, "x": x, "y": "AQ"}
        for crv in ("P-256", "P-9", 5, None)
        for x in ("AQ", 1)
    ),
    {"kty": "EC", "kid": "odd", "crv": "P-256", "x": "A" * 43, "y": "A" * 43, "alg": "ES256"},  # not on the curve
    {"kty": "EC", "kid": "odd", "crv": "P-256", "x": "A" * 43, "y": "A" * 43, "alg": {}},
    {**RSA.jwk, "kid": "odd", "alg": 5},
    {**RSA.jwk, "kid": "odd", "alg": "ES256"},
    {**RSA.jwk, "kid": "odd", "use": []},
    {**RSA.jwk, "kid": "odd", "d": "AQ"},
    {**json.loads(RSAAlgorithm.to_jwk(RSA.private)), "kid": "private", "alg": "RS256"},
]


def test_odd_keys_of_an_issuer_do_not_lose_the_others(by_key_set: Portal, published: Published) -> None:
    published.document = {"keys": [*ODD_KEYS[::2], RSA.jwk, *ODD_KEYS[1::2], EC.jwk]}
    assert user(by_key_set, RSA.sign(claims())).status_code == 200
    assert user(by_key_set, EC.sign(claims())).status_code == 200
    assert user(by_key_set, RSA.sign(claims(), kid="odd")).status_code in (200, 401)
    assert user(by_key_set, RSA.sign(claims(), kid="private")).status_code == 401


def test_tokens_that_cannot_be_checked_count_for_their_address(
    open_client: Any, tenants: Any, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.status = 500
    stop_the_minute(monkeypatch)
    limits = LimitSettings(per_ip=3, redis_url=None)
    with running_portal(open_client, tenants, "acme", auth=asymmetric(published), limits=limits) as portal:
        answers = [user(portal, RSA.sign(claims())) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [503, 503, 503, 429, 429]
        assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"3"}


def test_a_key_set_without_end_is_not_read(by_key_set: Portal, published: Published) -> None:
    published.document = {"keys": [RSA.jwk], "padding": "x" * 1_100_000}
    assert user(by_key_set, RSA.sign(claims())).status_code == 503


@pytest.mark.parametrize(
    "issuer",
    [
        {"algorithms": ["HS256", "RS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"algorithms": ["HS256"], "key": "too short"},
        {"algorithms": ["HS256"], "jwks_url": "https://auth.example/jwks"},
        {"algorithms": ["RS256"], "key": RSA.pem, "jwks_url": "https://auth.example/jwks"},
        {"algorithms": ["RS256"], "key": None},
        *({"algorithms": ["RS256"], "jwks_url": url} for url in INSECURE),
        *({"issuer": url} for url in INSECURE),
        {"tenants": []},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(issuer: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        trusting(**issuer)


def test_the_settings_come_from_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    document = [{"issuer": ISSUER, "algorithms": ["HS256"], "key": SHARED, "tenants": ["acme"]}]
    monkeypatch.setenv("EXTERNAL_ISSUERS", json.dumps(document))
    (issuer,) = AuthSettings().external_issuers
    assert (issuer.issuer, issuer.audience, issuer.tenants) == (ISSUER, "authenticated", ("acme",))
    assert SHARED not in repr(issuer)


def test_names_and_keys_that_cannot_be_stop_the_start(configuration: Configuration) -> None:
    twice = AuthSettings(jwt_secret=SecretStr(SECRET), external_issuers=trusting().external_issuers * 2)
    own = trusting().model_copy(update={"jwt_issuer": ISSUER})
    for auth in (twice, own, trusting(algorithms=["RS256"], key="no key in PEM")):
        with pytest.raises(ValueError, match=r"EXTERNAL_ISSUERS|PEM"):
            create_app(replace(configuration, auth=auth))


def test_users_and_roles_that_come_with_tokens_are_in_the_audit_trail(by_secret: Portal) -> None:
    now = int(time.time())
    assert users(by_secret, sign(claims(role="user", iat=now - 20))) == 403
    promoted = sign(claims(role="admin", iat=now - 10))
    within_5_seconds(200, lambda: by_secret.client.get("/api/users", headers=bearer(promoted)))
    assert user(by_secret, promoted).status_code == 200
    by = {"actor": "identity-provider"}
    entries = by_secret.client.get("/api/audit", params=by, headers=bearer(promoted)).json()["data"]
    assert [(entry["action"], entry["target"], entry["detail"]) for entry in entries] == [
        ("role.changed", "person-1", {"before": "user", "after": "admin"}),
        ("user.created", "person-1", {"role": "user"}),
    ]
