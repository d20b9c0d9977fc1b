"""Random keys cost no query once their address has used up its limit, and block no key that is valid."""

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api.keys import directory
from api.keys.service import hash_of
from api.keys.tags import has_tag, make_key
from configs.api import LimitSettings
from tests.fixtures.clock import pass_time, stop_the_minute
from tests.fixtures.portal import Portal, running_portal

TIGHT = LimitSettings(per_ip=5, redis_url=None)


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that were looked up in the database."""
    asked: list[bytes] = []
    find = directory.find_live

    async def counted(pool: Any, key_hash: bytes) -> Any:
        asked.append(key_hash)
        return await find(pool, key_hash)

    monkeypatch.setattr(directory, "find_live", counted)
    return asked


@pytest.fixture
def tight(open_client: Any, tenants: Any, queries: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Portal]:
    stop_the_minute(monkeypatch)
    with running_portal(open_client, tenants, "acme", limits=TIGHT) as portal:
        loaded(portal.client)
        yield portal


def loaded(client: TestClient) -> None:
    """Read the known keys now, as the application does at its start and every five minutes."""
    client.portal.call(client.app.state.keys.known.load)  # type: ignore[union-attr, attr-defined]


def random_key() -> dict[str, str]:
    return {"X-API-Key": "rk_" + secrets.token_urlsafe(32)}


def untagged_key(portal: Portal) -> dict[str, str]:
    """A key as versions before made them."""
    header = random_key()
    portal.sql(
        "INSERT INTO api_keys (id, tenant_id, name, prefix, key_hash, scopes) "
        "VALUES (gen_random_uuid(), 'acme', 'old', 'rk_old', %s, '{read,write}')",
        hash_of(header["X-API-Key"]),
    )
    return header


def get(portal: Portal, headers: dict[str, str]) -> int:
    return portal.client.get("/api/items", headers=headers).status_code


def test_random_keys_are_counted_before_the_database_is_asked(tight: Portal, queries: list[bytes]) -> None:
    codes = [get(tight, random_key()) for _ in range(40)]
    assert codes == [401] * 5 + [429] * 35
    assert len(queries) <= 5


def test_an_exhausted_address_blocks_no_valid_credential(tight: Portal) -> None:
    old = untagged_key(tight)
    loaded(tight.client)
    before = tight.tenants.key("acme")
    assert {get(tight, random_key()) for _ in range(10)} == {401, 429}
    after = tight.tenants.key("acme")  # made while the flood goes on, and used at once
    assert [get(tight, key) for key in (old, before, after)] == [200, 200, 200]


def test_a_key_of_before_that_is_not_known_yet_is_known_from_its_first_use_on(
    tight: Portal, queries: list[bytes]
) -> None:
    old = untagged_key(tight)
    answers = [tight.client.get("/api/items", headers=old) for _ in range(3)]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"1000"}
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["999", "998", "997"]
    assert {get(tight, random_key()) for _ in range(10)} == {401, 429}
    assert get(tight, old) == 200


def test_keys_that_have_ended_are_no_better_than_random_ones(tight: Portal, queries: list[bytes]) -> None:
    ended = [tight.tenants.key("acme") for _ in range(12)]
    tight.sql("UPDATE api_keys SET revoked_at = now()")
    assert [get(tight, key) for key in ended] == [401] * 5 + [429] * 7
    queries.clear()
    pass_time(5)
    assert {get(tight, key) for key in ended} == {429}
    assert queries == []


def test_random_keys_do_not_drive_known_ones_from_the_cache(
    open_client: Any, tenants: Any, queries: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "STRANGERS", 3)
    with running_portal(open_client, tenants, "acme") as portal:
        loaded(portal.client)
        key = tenants.key("acme")
        assert get(portal, key) == 200
        for _ in range(10):
            assert get(portal, random_key()) == 401
        keys = portal.client.app.state.keys  # type: ignore[attr-defined]
        assert len(keys._strangers._values) == 3
        assert list(keys._found._values) == [hash_of(key["X-API-Key"])]


def test_a_rotated_key_of_before_gets_a_tag(portal: Portal) -> None:
    admin = portal.admin()
    old = untagged_key(portal)
    loaded(portal.client)
    ((key_id,),) = portal.sql("SELECT id::text FROM api_keys")
    new = portal.client.post(f"/api/keys/{key_id}/rotate", headers=admin).json()["key"]
    assert portal.sql("SELECT is_tagged FROM api_keys") == [(True,)]
    keys = portal.client.app.state.keys  # type: ignore[attr-defined]
    assert (keys.is_doubtful(new), keys.is_doubtful(random_key()["X-API-Key"])) == (False, True)
    loaded(portal.client)
    assert keys.is_doubtful(old["X-API-Key"])


def test_no_key_with_another_tag_is_taken_for_one_of_ours() -> None:
    secret = secrets.token_bytes(32)
    key = make_key(secret)
    assert (len(key), key[:3], has_tag(key, secret)) == (46, "rk_", True)
    assert not has_tag(key, secrets.token_bytes(32))
    for place in range(3, 46):
        changed = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
        assert not has_tag(changed, secret) or place == 45  # the last character has bits that no byte needs
    assert len({make_key(secret) for _ in range(100)}) == 100


def test_before_the_keys_are_loaded_valid_ones_work_and_random_ones_count(
    open_client: Any, tenants: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Any) -> None:
        raise psycopg.OperationalError

    monkeypatch.setattr("api.keys.known_keys.KnownKeys.load", never)
    with running_portal(open_client, tenants, "acme") as portal:
        key = tenants.key("acme")
        assert [get(portal, headers) for headers in (key, random_key(), key)] == [200, 401, 200]
