"""Keys and tokens: which are accepted, for what, and how soon they are refused after a change."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import psycopg
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import Configuration, create_app
from api.auth.signing_keys import MissingSecretError
from api.database.refresh_ahead_cache import RefreshAheadCache
from api.database.scope import TenantScope
from api.http.principal import CurrentTenant, ReadKey, WriteKey
from api.http.problems import Conflict, Invalid, NotFound
from api.keys.service import create_key, hash_of, revoke_key
from api.tenants.service import delete_tenant
from api.users.passwords import Passwords
from api.users.service import create_admin, set_password
from configs.auth import AuthSettings
from tests.api.conftest import SECRET, OpenClient, Tenants
from tests.fixtures.clock import pass_time
from tests.fixtures.journals import journals
from tests.fixtures.portal import within_5_seconds

PASSWORD = "correct horse battery"
EMAIL = "Ada@Example.com"


def _routes(app: FastAPI) -> None:
    @app.get("/reads")
    async def reads(key: ReadKey) -> str:
        return key.tenant.id

    @app.post("/writes")
    async def writes(key: WriteKey) -> str:
        return key.tenant.id

    @app.get("/anybody")
    async def anybody(tenant: CurrentTenant) -> str:
        return tenant.tenant_id


@pytest.fixture
def client(open_client: OpenClient) -> Iterator[TestClient]:
    with open_client(adapt=_routes) as opened:
        yield opened


def _row(url: str, key: dict[str, str]) -> Any:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT id, prefix, last_used_at, scopes FROM api_keys WHERE key_hash = %s", [hash_of(key["X-API-Key"])]
        ).fetchone()
    assert found is not None
    return found


def test_a_key_opens_what_its_scopes_say_in_its_own_tenant(client: TestClient, tenants: Tenants) -> None:
    tenants.create("acme")
    tenants.create("other")
    reader, writer, both = (tenants.key("acme", scopes) for scopes in (("read",), ("write",), ("read", "write")))
    assert client.get("/reads", headers=reader).json() == "acme"
    assert client.post("/writes", headers=reader).status_code == 403
    assert client.get("/reads", headers=writer).status_code == 403
    assert client.post("/writes", headers=writer).json() == "acme"
    assert client.get("/reads", headers=both).json() == client.post("/writes", headers=both).json() == "acme"
    assert client.get("/reads", headers=tenants.key("other")).json() == "other"


@pytest.mark.parametrize("key", [None, "", "rk_", "rk_" + "x" * 43, "x" * 5000, "rk_" + "é" * 43, "' OR 1=1 --"])
def test_without_a_valid_key_it_is_a_401(client: TestClient, tenants: Tenants, key: str | None) -> None:
    headers = {} if key is None else {"X-API-Key": key.encode()}
    answer = client.get("/reads", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["detail"] == "API key is missing or invalid"
    assert answer.headers["www-authenticate"] == "ApiKey"


def test_only_the_hash_of_a_key_is_kept(tenants: Tenants, database_url: str) -> None:
    tenants.create()
    key = tenants.key()["X-API-Key"]
    with psycopg.connect(database_url) as connection:
        (row,) = connection.execute("SELECT api_keys::text FROM api_keys").fetchall()
    assert key not in row[0]
    assert key[:9] in row[0]


def test_a_revoked_key_and_those_of_a_deleted_tenant_are_dead_within_5_seconds(
    client: TestClient, tenants: Tenants, database_url: str, tmp_path: Path
) -> None:
    tenants.create("acme")
    tenants.create("gone")
    revoked, orphaned, kept = tenants.key("acme"), tenants.key("gone"), tenants.key("acme")
    assert {client.get("/reads", headers=key).status_code for key in (revoked, orphaned, kept)} == {200}
    key_id: UUID = _row(database_url, revoked)[0]
    tenants.run(lambda session: revoke_key(session, TenantScope("acme"), key_id, journals(tmp_path)[1]))
    tenants.run(lambda session: delete_tenant(session, "gone"))
    within_5_seconds(401, lambda: client.get("/reads", headers=revoked))
    assert [client.get("/reads", headers=key).status_code for key in (orphaned, kept)] == [401, 200]


def test_a_key_of_another_tenant_cannot_be_revoked(tenants: Tenants, database_url: str, tmp_path: Path) -> None:
    tenants.create("acme")
    tenants.create("other")
    key_id = _row(database_url, tenants.key("acme"))[0]
    with pytest.raises(NotFound):
        tenants.run(lambda session: revoke_key(session, TenantScope("other"), key_id, journals(tmp_path)[1]))


def test_the_last_use_of_a_key_is_noted_behind_the_requests(
    open_client: OpenClient, tenants: Tenants, database_url: str
) -> None:
    tenants.create()
    used, unused = tenants.key(), tenants.key()
    with open_client() as client:
        client.get("/nothing", headers=used)
    assert _row(database_url, used)[2] is not None
    assert _row(database_url, unused)[2] is None


def test_a_tenant_has_at_most_20_live_keys(tenants: Tenants, database_url: str, tmp_path: Path) -> None:
    tenants.create()
    keys = [tenants.key() for _ in range(20)]
    with pytest.raises(Conflict):
        tenants.key()
    key_id = _row(database_url, keys[0])[0]
    tenants.run(lambda session: revoke_key(session, TenantScope("acme"), key_id, journals(tmp_path)[1]))
    tenants.key()


@pytest.mark.parametrize(
    ("name", "scopes", "limit"), [("", ["read"], 1), ("n", [], 1), ("n", ["own"], 1), ("n", ["read"], -1)]
)
def test_keys_of_no_sense_are_refused(tenants: Tenants, name: str, scopes: list[str], limit: int) -> None:
    tenants.create()
    with pytest.raises(Invalid):
        tenants.run(lambda session: create_key(session, TenantScope("acme"), name, scopes, limit))


def test_a_login_answers_a_token_and_the_user(client: TestClient, tenants: Tenants) -> None:
    tenants.create()
    tenants.run(lambda session: create_admin(session, Passwords(), TenantScope("acme"), EMAIL, PASSWORD))
    answer = client.post("/api/auth/login", json={"email": "ada@example.COM", "password": PASSWORD})
    assert answer.status_code == 200
    user = answer.json()["user"]
    assert set(user) == {"id", "email", "name", "role", "isActive", "createdAt"}
    assert (user["email"], user["role"], user["isActive"]) == (EMAIL, "admin", True)
    assert user["createdAt"].endswith("Z")
    token = answer.json()["token"]
    claims = jwt.decode(token, SECRET, ["HS256"], audience="authenticated")
    assert set(claims) == {"iss", "sub", "aud", "role", "tenant_id", "session_id", "iat", "exp", "jti"}
    assert (claims["sub"], claims["tenant_id"], claims["role"]) == (user["id"], "acme", "admin")
    bearer = {"Authorization": f"Bearer {token}"}
    answer = client.get("/anybody", headers=bearer)
    assert (answer.json(), answer.headers["x-ratelimit-limit"]) == ("acme", "200")
    assert client.get("/reads", headers=bearer).status_code == 401  # for backends, who have keys


def test_a_wrong_login_is_the_same_401_whatever_was_wrong(
    client: TestClient, tenants: Tenants, database_url: str
) -> None:
    tenants.create()
    tenants.run(lambda session: create_admin(session, Passwords(), TenantScope("acme"), EMAIL, PASSWORD))
    tenants.run(lambda session: create_admin(session, Passwords(), TenantScope("acme"), "off@example.com", PASSWORD))
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE users SET is_active = false WHERE email = 'off@example.com'")
        connection.execute("INSERT INTO users (tenant_id, id, email) VALUES ('acme', 'end', 'end@example.com')")
    tries = [
        (EMAIL, "wrong password"),
        ("nobody@example.com", PASSWORD),
        ("off@example.com", PASSWORD),
        ("end@example.com", ""),
    ]
    answers = [client.post("/api/auth/login", json={"email": email, "password": password}) for email, password in tries]
    assert {(answer.status_code, answer.json()["detail"]) for answer in answers} == {
        (401, "The email or the password is wrong")
    }


def test_an_email_that_can_log_in_is_unique_across_tenants_whatever_its_case(tenants: Tenants) -> None:
    tenants.create("acme")
    tenants.create("other")
    tenants.run(lambda session: create_admin(session, Passwords(), TenantScope("acme"), EMAIL, PASSWORD))
    with pytest.raises(Conflict):
        tenants.run(lambda session: create_admin(session, Passwords(), TenantScope("other"), EMAIL.lower(), PASSWORD))


def test_a_changed_password_replaces_the_old_one(client: TestClient, tenants: Tenants) -> None:
    tenants.create()
    tenants.run(lambda session: create_admin(session, Passwords(), TenantScope("acme"), EMAIL, PASSWORD))
    tenants.run(lambda session: set_password(session, Passwords(), EMAIL.upper(), "another password"))
    codes = [
        client.post("/api/auth/login", json={"email": EMAIL, "password": password}).status_code
        for password in (PASSWORD, "another password")
    ]
    assert codes == [401, 200]


@pytest.mark.parametrize(
    "change",
    [{"exp": 1}, {"aud": "others"}, {"iss": "others"}, {"sub": "nobody"}, {"tenant_id": "other"}, {"jti": None}],
)
def test_a_token_that_is_not_quite_right_opens_nothing(
    client: TestClient, tenants: Tenants, change: dict[str, Any]
) -> None:
    tenants.create("acme")
    tenants.create("other")
    tenants.run(lambda session: create_admin(session, Passwords(), TenantScope("acme"), EMAIL, PASSWORD))
    token = client.post("/api/auth/login", json={"email": EMAIL, "password": PASSWORD}).json()["token"]
    claims = jwt.decode(token, SECRET, ["HS256"], audience="authenticated") | change
    forged = jwt.encode({name: value for name, value in claims.items() if value is not None}, SECRET, "HS256")
    assert client.get("/anybody", headers={"Authorization": f"Bearer {forged}"}).status_code == 401


def test_tokens_of_other_secrets_or_none_open_nothing(client: TestClient, tenants: Tenants) -> None:
    tenants.create()
    tenants.run(lambda session: create_admin(session, Passwords(), TenantScope("acme"), EMAIL, PASSWORD))
    token = client.post("/api/auth/login", json={"email": EMAIL, "password": PASSWORD}).json()["token"]
    claims = jwt.decode(token, SECRET, ["HS256"], audience="authenticated")
    other = jwt.encode(claims, "another secret, which is of more than 32 bytes", "HS256")
    unsigned = jwt.encode(claims, None, "none")
    codes = [
        client.get("/anybody", headers={"Authorization": f"Bearer {forged}"}).status_code
        for forged in (other, unsigned, token[:-2], "nonsense", "")
    ]
    assert codes == [401] * 5
    assert client.get("/anybody", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_without_a_secret_of_32_bytes_the_api_does_not_start(configuration: Configuration) -> None:
    from dataclasses import replace

    for secret in (None, "", "too short"):
        with pytest.raises(MissingSecretError, match="JWT_SECRET"):
            create_app(replace(configuration, auth=AuthSettings(jwt_secret=secret)))


def test_a_cached_value_is_loaded_once_for_many_and_again_before_it_is_old() -> None:
    loads: list[int] = []

    async def load(key: int) -> int:
        await asyncio.sleep(0.01)
        loads.append(key)
        return len(loads)

    async def run() -> list[int]:
        cache: RefreshAheadCache[int, int] = RefreshAheadCache(load, seconds=4)
        assert await asyncio.gather(*(cache.get(7) for _ in range(50))) == [1] * 50
        seen = [await cache.get(7)]
        pass_time(2.5)  # the second half of its life: served, and loaded again behind
        seen.append(await cache.get(7))
        await asyncio.gather(*cache._loading.values())
        seen.append(await cache.get(7))
        pass_time(5)  # too old
        seen.append(await cache.get(7))
        return seen

    assert asyncio.run(run()) == [1, 1, 2, 3]


def test_a_stale_value_is_returned_at_once_and_loaded_again_behind() -> None:
    loads: list[int] = []

    async def load(key: int) -> int:
        loads.append(key)
        return len(loads)

    async def run() -> list[int]:
        cache: RefreshAheadCache[int, int] = RefreshAheadCache(load, seconds=4, stale_seconds=100)

        async def loaded() -> None:
            await asyncio.gather(*cache._loading.values())

        cache.keep(7, 60)  # missing
        await loaded()
        pass_time(50)
        cache.keep(7, 60)  # young enough
        assert not cache._loading
        seen = [await cache.get(7)]
        await loaded()
        seen.append(await cache.get(7))
        pass_time(61)
        cache.keep(7, 60)
        cache.keep(8, 60)  # waits for its turn: one load at a time
        assert list(cache._loading) == [7]
        await loaded()
        seen.append(await cache.get(7))
        pass_time(101)
        seen.append(await cache.get(7))  # too old to be of use
        return seen

    assert asyncio.run(run()) == [1, 2, 3, 4]


def test_a_failed_load_is_the_callers_and_the_next_one_tries_again() -> None:
    answers: list[Any] = [OSError("away"), "here"]

    async def load(_key: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async def run() -> str:
        cache: RefreshAheadCache[str, str] = RefreshAheadCache(load)
        with pytest.raises(OSError, match="away"):
            await cache.get("a")
        return await cache.get("a")

    assert asyncio.run(run()) == "here"


def test_the_cache_is_bounded() -> None:
    async def load(key: int) -> int:
        return key

    async def run() -> int:
        cache: RefreshAheadCache[int, int] = RefreshAheadCache(load, size=10)
        for key in range(1_000):
            await cache.get(key)
        return len(cache._values)

    assert asyncio.run(run()) == 10
