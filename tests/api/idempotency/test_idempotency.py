"""`Idempotency-Key`: a request that is sent again has its effect once and its first answer every time."""

import asyncio
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import event

from api.database.engine import Database
from api.database.scope import TenantScope
from api.idempotency import middleware
from api.idempotency.repository import IdempotencyRepository, delete_expired
from api.scenarios import preview
from api.scenarios.trials import TriedList
from api.users.passwords import Passwords
from tests.fixtures.backend import Backend, running_backend
from tests.fixtures.platform import wait_until
from tests.fixtures.portal import PASSWORD, Portal

ITEM = {"metadata": {"title": "Headphones"}}


def _post(backend: Backend, path: str, body: Any, key: str = "k1", **headers: str) -> httpx.Response:
    return backend.client.post(path, json=body, headers={"Idempotency-Key": key, **headers})


def _count(backend: Backend, table: str) -> int:
    return int(backend.sql(f"SELECT count(*) FROM {table}")[0][0])


def _same(first: httpx.Response, second: httpx.Response) -> bool:
    assert "idempotent-replayed" not in first.headers
    return (second.status_code, second.content, second.headers["content-type"]) == (
        first.status_code,
        first.content,
        first.headers["content-type"],
    ) and second.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    ("path", "body", "table", "made"),
    [
        ("/api/items", ITEM, "items", 2),
        ("/api/items/batch", {"items": [ITEM, ITEM, {"metadata": 7}]}, "items", 3),
        ("/api/v1/interactions", {"userId": "ann", "itemId": "i", "interactionType": "like"}, "interactions", 1),
        (
            "/api/v1/interactions",
            {"userId": "ann", "itemId": "new", "interactionType": "like", "createItem": True},
            "interactions",
            1,
        ),
        (
            "/api/v1/interactions/batch",
            {"interactions": [{"userId": "ann", "itemId": "i", "interactionType": "view"}] * 3},
            "interactions",
            3,
        ),
    ],
)
def test_a_repeated_request_has_one_effect_and_its_first_answer(
    backend: Backend, path: str, body: Any, table: str, made: int
) -> None:
    backend.add_items({"i": {}})
    first, second = _post(backend, path, body), _post(backend, path, body)
    assert first.status_code in (200, 201)
    assert _same(first, second)
    assert _count(backend, table) == made
    assert _post(backend, path, body, key="k2").content != first.content


def test_without_the_header_nothing_is_kept(backend: Backend) -> None:
    assert backend.post("/api/items", ITEM, 201)["id"] != backend.post("/api/items", ITEM, 201)["id"]
    assert _count(backend, "idempotency_records") == 0


def test_another_body_is_409_and_leaves_the_first_answer(backend: Backend) -> None:
    first = _post(backend, "/api/items", ITEM)
    other = _post(backend, "/api/items", {"metadata": {}})
    assert (other.status_code, other.headers["content-type"]) == (409, "application/problem+json")
    assert "another body" in other.json()["detail"]
    assert _same(first, _post(backend, "/api/items", ITEM))
    assert _count(backend, "items") == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/interactions", {"userId": "ann", "itemId": "late", "interactionType": "like"}, 404),
        ("/api/items", {"id": ""}, 400),
        ("/api/items", {"id": "i", "metadata": {}}, 409),
    ],
)
def test_a_refusal_is_kept_too(backend: Backend, path: str, body: Any, status: int) -> None:
    backend.add_items({"i": {}})
    first = _post(backend, path, body)
    assert first.status_code == status
    backend.add_items({"late": {}})
    backend.client.delete("/api/items/i")
    assert _same(first, _post(backend, path, body))
    assert first.json()["traceId"] == _post(backend, path, body).json()["traceId"]


def test_a_refusal_leaves_no_effect(backend: Backend) -> None:
    version = backend.sql("SELECT version FROM catalogues")
    backend.post("/api/items", {"id": "i", "metadata": {}}, 201)
    assert _post(backend, "/api/items", {"id": "i", "metadata": {}}).status_code == 409
    assert backend.sql("SELECT version FROM catalogues") == [(version[0][0] + 1,)]


def test_a_missing_credential_is_not_kept_and_a_limit_neither(open_client: Any, tenants: Any) -> None:
    with running_backend(open_client, tenants) as backend:
        assert _post(backend, "/api/items", ITEM, **{"X-API-Key": "nobody's"}).status_code == 401
        limited = tenants.key("shop", rate_limit=1)
        answers = [_post(backend, "/api/items", ITEM, key=key, **limited).status_code for key in ("a", "b")]
        assert answers in ([201, 429], [201, 201])  # a minute may have ended between them
        assert _count(backend, "idempotency_records") == answers.count(201)


def test_keys_are_apart_by_tenant_credential_and_route(open_client: Any, tenants: Any) -> None:
    with running_backend(open_client, tenants, "one") as one, running_backend(open_client, tenants, "two") as two:
        second_key = tenants.key("one")
        ids = [
            _post(one, "/api/items", ITEM).json()["id"],
            _post(two, "/api/items", ITEM).json()["id"],
            _post(one, "/api/items", ITEM, **second_key).json()["id"],
        ]
        assert len(set(ids)) == 3
        assert _post(one, "/api/items/batch", {"items": [ITEM]}).status_code == 200
        assert two.client.get(f"/api/items/{ids[0]}").status_code == 404


def test_recommending_ignores_the_header(backend: Backend) -> None:
    answers = [_post(backend, "/api/v1/recommend", {"userId": "u", "count": 1}) for _ in range(2)]
    assert len({answer.headers["x-recommendation-id"] for answer in answers}) == 2
    assert _count(backend, "idempotency_records") == 0


def test_logging_in_ignores_the_header(backend: Backend) -> None:
    for _ in range(2):
        assert _post(backend, "/api/auth/login", {"email": "a@b.example", "password": "wrong one"}).status_code == 401
    assert _count(backend, "idempotency_records") == 0


def test_a_route_that_does_not_exist_keeps_nothing(backend: Backend) -> None:
    assert _post(backend, "/api/nothing", ITEM).status_code == 404
    assert _post(backend, "/api/items/i", ITEM).status_code == 405
    assert _count(backend, "idempotency_records") == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "é".encode()])
def test_a_key_that_is_none_is_400(backend: Backend, key: Any) -> None:
    answer = backend.client.post("/api/items", json=ITEM, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "Idempotency-Key")
    assert _count(backend, "items") == 0


def test_a_body_that_is_too_large_is_413_with_the_header_too(backend: Backend) -> None:
    answer = backend.client.post("/api/items", content=iter([b"x" * 1024] * 3000), headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


def test_after_a_day_the_key_is_free(backend: Backend) -> None:
    first = _post(backend, "/api/items", ITEM)
    backend.sql("UPDATE idempotency_records SET created_at = now() - interval '23 hours 59 minutes'")
    assert _same(first, _post(backend, "/api/items", ITEM))
    backend.sql("UPDATE idempotency_records SET created_at = now() - interval '24 hours'")
    again = _post(backend, "/api/items", {"metadata": {"another": "body"}})
    assert (again.status_code, _count(backend, "items"), _count(backend, "idempotency_records")) == (201, 2, 1)
    assert _same(again, _post(backend, "/api/items", {"metadata": {"another": "body"}}))


def test_what_is_older_than_a_day_is_deleted(backend: Backend) -> None:
    _post(backend, "/api/items", ITEM, key="old")
    backend.sql("UPDATE idempotency_records SET created_at = now() - interval '25 hours'")
    _post(backend, "/api/items", ITEM, key="new")

    async def forget() -> int:
        database = Database(backend.url, pool_min=1)
        await database.open()
        try:
            return await delete_expired(database.pool)
        finally:
            await database.close()

    assert asyncio.run(forget()) == 1
    assert _count(backend, "idempotency_records") == 1


def test_twins_sent_at_once_have_one_effect(backend: Backend) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: _post(backend, "/api/items", ITEM), range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert _count(backend, "items") == 1


def test_while_the_first_is_in_flight_its_twin_is_409_after_2_seconds(backend: Backend) -> None:
    with ThreadPoolExecutor(1) as pool, psycopg.connect(backend.url) as holding:
        holding.execute("UPDATE catalogues SET version = version")  # writers of items wait
        first = pool.submit(_post, backend, "/api/items", ITEM)
        wait_until("the first", lambda: bool(backend.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'")))
        started = time.monotonic()
        twin = _post(backend, "/api/items", ITEM)
        assert time.monotonic() - started >= 2.0
        assert (twin.status_code, "in flight" in twin.json()["detail"]) == (409, True)
        assert backend.client.get("/api/items").json()["total"] == 0
        holding.commit()
        assert first.result(10).status_code == 201
    assert _same(first.result(), _post(backend, "/api/items", ITEM))


def test_the_answer_and_the_effect_are_stored_together_or_not_at_all(backend: Backend) -> None:
    backend.add_items({"i": {}})
    backend.sql(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
        "CREATE TRIGGER fail BEFORE INSERT ON idempotency_records FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    interaction = {"userId": "ann", "itemId": "i", "interactionType": "like"}
    assert _post(backend, "/api/items", ITEM).status_code == 500
    assert _post(backend, "/api/v1/interactions", interaction).status_code == 500
    assert (_count(backend, "items"), _count(backend, "interactions"), _count(backend, "users")) == (1, 0, 0)
    backend.sql("DROP TRIGGER fail ON idempotency_records")
    assert _post(backend, "/api/items", ITEM).status_code == 201
    assert _post(backend, "/api/v1/interactions", interaction).status_code == 201


def test_a_key_costs_one_statement_before_the_effect_and_one_after(backend: Backend) -> None:
    backend.add_items({"i": {}})
    seen: list[str] = []
    engine = backend.client.app.state.database.engine.sync_engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
    _post(backend, "/api/v1/interactions", {"userId": "ann", "itemId": "i", "interactionType": "like"})
    assert [("pg_try_advisory" in text, "INSERT INTO idempotency_records" in text) for text in seen] == [
        (True, False),
        (False, True),
    ]


def test_a_users_answers_are_forgotten_with_the_user(backend: Backend, tenants: Any) -> None:
    for user, body in (("ann", b"{}"), (None, b'{"id":"ann"}'), (None, b'{"id":"anna"}'), ("bob", b"{}")):
        for tenant in ("shop", "other"):
            digest = user and hashlib.sha256(f"{tenant}\0{user}".encode()).hexdigest()
            values = [tenant, body + str(user).encode(), digest, body]
            backend.sql("INSERT INTO idempotency_records VALUES (%s, sha256(%s), '', %s, 201, '[]', %s)", values)

    async def forget(session: Any) -> None:
        await IdempotencyRepository(session, TenantScope("shop")).delete_of_user("ann")

    tenants.run(forget)
    left = backend.sql("SELECT user_id IS NULL, body FROM idempotency_records WHERE tenant_id = 'shop' ORDER BY body")
    assert [(keys, bytes(body)) for keys, body in left] == [(True, b'{"id":"anna"}'), (False, b"{}")]
    assert _count(backend, "idempotency_records WHERE tenant_id = 'other'") == 4


def test_keys_of_requests_that_wait_to_hash_a_password_hold_no_connection(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More users are made at once than there are connections, and each of the keys comes twice."""
    admin, go_on, waiting, hash_ = portal.admin(), threading.Event(), [], Passwords.hash

    async def hash_later(self: Passwords, password: str, *about: str | None) -> str:
        waiting.append(password)
        while not go_on.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)
        return await hash_(self, password, *about)

    def create(number: int) -> httpx.Response:
        body = {"email": f"{number // 2}@acme.example", "password": PASSWORD}
        return portal.client.post("/api/users", json=body, headers={**admin, "Idempotency-Key": f"k{number // 2}"})

    monkeypatch.setattr(Passwords, "hash", hash_later)
    monkeypatch.setattr(middleware, "WAIT_SECONDS", 60.0)  # 40 hashes on a busy machine
    with ThreadPoolExecutor(40) as pool:
        calls = [pool.submit(create, number) for number in range(40)]
        try:
            wait_until("all to hash", lambda: len(waiting) == 40)
            held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state ^@ %s"
            assert portal.sql(held, "idle in transaction") == [(0,)]
            assert portal.client.get("/api/users", headers=admin).json()["total"] == 1
        finally:
            go_on.set()
        answers = [call.result() for call in calls]
    assert {answer.status_code for answer in answers} == {201}
    assert all(one.content == twin.content for one, twin in zip(answers[::2], answers[1::2], strict=True))
    assert portal.client.get("/api/users", headers=admin).json()["total"] == 21
    other = {"email": "0@acme.example", "password": "another long passphrase"}
    assert portal.client.post("/api/users", json=other, headers={**admin, "Idempotency-Key": "k0"}).status_code == 409


def test_keys_of_requests_that_try_a_recipe_hold_no_connection(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial asks the models for up to a hundred users. More than there are connections wait for theirs."""
    admin, go_on, waiting = portal.admin(), threading.Event(), []

    class Trials:
        async def try_recipe(self, scope: TenantScope, recipe: Any, users: list[str], *_: Any, **__: Any) -> list[Any]:
            waiting.append(scope)
            while not go_on.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.01)
            return [TriedList([], {}) for _ in users]

    def ask(number: int) -> httpx.Response:
        headers = {**admin, "Idempotency-Key": f"k{number}"}
        if number % 2:
            return portal.client.post("/api/scenarios/first/preview", json={"userIds": ["ann"]}, headers=headers)
        return portal.client.post("/api/scenarios", json={"id": f"s{number}", "name": "s"}, headers=headers)

    assert portal.client.post("/api/scenarios", json={"id": "first", "name": "s"}, headers=admin).status_code == 201
    monkeypatch.setattr(preview, "TRIALS_OF_TENANT", 40)
    portal.client.app.state.recipe_trials = Trials()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(40) as pool:
        calls = [pool.submit(ask, number) for number in range(40)]
        try:
            wait_until("all to try", lambda: len(waiting) == 40)
            held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state ^@ %s"
            assert portal.sql(held, "idle in transaction") == [(0,)]
            assert portal.client.get("/api/scenarios", headers=admin).json()["total"] == 1
        finally:
            go_on.set()
        assert {call.result().status_code for call in calls} == {200, 201}
    assert portal.client.get("/api/scenarios", headers=admin).json()["total"] == 21
