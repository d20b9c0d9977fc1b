"""Every authenticated POST that creates something honours `Idempotency-Key`. Routes are found in the application."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from starlette.testclient import TestClient

from configs.api import LimitSettings
from tests.fixtures.portal import within_5_seconds
from tests.fixtures.routes import Route, all_routes
from tests.fixtures.standin import StandIn
from tests.fixtures.twins import Twin, make_twin
from tests.fixtures.valid_bodies import bodies_of, operations

IGNORES = {
    "POST /api/auth/login": "how one gets a credential",
    "POST /api/auth/register": "how one gets a credential",
    "POST /auth/v1/token": "how one gets a credential",
    "POST /auth/v1/signup": "how one gets a credential",
    "POST /auth/v1/logout": "makes nothing",
    "POST /api/v1/recommend": "makes nothing",
    "POST /api/v1/recommend/next": "each call gives another page",
    "POST /api/v1/impressions": "what is known already is not changed",
    "POST /api/v1/similar": "makes nothing",
    "POST /api/scenarios/{scenario_id}/preview": "makes nothing",
    "POST /api/billing/webhook": "events have ids of their own",
}
POSTS = {str(route): route for route in all_routes() if route.method == "POST"}
SECRETS = {"POST /api/keys", "POST /api/keys/{key_id}/rotate"}


@pytest.fixture
def caller(open_client: Any, tenants: Any, stripe_account: StandIn) -> Iterator[tuple[TestClient, Twin]]:
    limits = LimitSettings(per_jwt=1_000, per_ip=1_000, redis_url=None)
    with open_client(limits=limits, billing=stripe_account.settings()) as client:
        yield client, make_twin(client, tenants.url, tenants, "acme", "beta")


def _call(client: TestClient, twin: Twin, route: Route, body: Any, key: str) -> Any:
    """The answer to the first of the credentials that the route takes."""
    path = route.path.format(**{name: quote(value) for name, value in twin.ids.items()})
    for headers in twin.credentials.values():
        answer = client.post(path, json=body, headers={**headers, "Idempotency-Key": key})
        if answer.status_code not in (401, 403):
            return answer
    raise AssertionError(f"none of the credentials opens {route}")


@pytest.mark.parametrize("name", sorted(POSTS.keys() - IGNORES.keys()))
def test_the_second_answer_is_the_first(name: str, caller: tuple[TestClient, Twin]) -> None:
    client, twin = caller
    body = operations(twin.ids)[1] if name == "POST /graphql" else bodies_of(POSTS[name], twin.ids)[0]
    first, second = (_call(client, twin, POSTS[name], body, "k") for _ in range(2))
    assert first.status_code == second.status_code == POSTS[name].status, first.text
    assert ("idempotent-replayed" in first.headers, second.headers.get("idempotent-replayed")) == (False, "true")
    expected = first.json()
    if name in SECRETS:
        assert expected.pop("key").startswith("rk_")
    assert second.json() == expected
    assert first.headers.get("location") == second.headers.get("location")
    assert _call(client, twin, POSTS[name], body, "another").content != first.content


@pytest.mark.parametrize("name", sorted(IGNORES))
def test_routes_that_make_nothing_or_log_in_ignore_the_header(
    name: str, caller: tuple[TestClient, Twin], tenants: Any
) -> None:
    client, twin = caller
    body: Any = {"email": "boss@beta.example", "password": "a password of the tests"}
    if POSTS[name].has_body and name.startswith("POST /api/v1/"):
        body = bodies_of(POSTS[name], twin.ids)[0]
    for credential in ("admin", "admin", "key", "key"):
        headers = {**twin.credentials[credential], "Idempotency-Key": "k"}
        answer = client.post(POSTS[name].path, params={"grant_type": "password"}, json=body, headers=headers)
        assert "idempotent-replayed" not in answer.headers
    with psycopg.connect(tenants.url) as connection:
        assert connection.execute("SELECT count(*) FROM idempotency_records").fetchall() == [(0,)]


def test_no_secret_of_a_key_is_kept(caller: tuple[TestClient, Twin], tenants: Any) -> None:
    client, twin = caller
    made = _call(client, twin, POSTS["POST /api/keys"], {"name": "n"}, "k").json()["key"]
    with psycopg.connect(tenants.url) as connection:
        rows = connection.execute(
            "SELECT convert_from(body, 'utf8'), to_jsonb(k)::text FROM idempotency_records AS k"
        ).fetchall()
    assert rows and not [row for row in rows if made in row[0] or made in row[1]]


def test_a_graphql_query_is_not_kept(
    caller: tuple[TestClient, Twin],
) -> None:
    client, twin = caller
    query = operations(twin.ids)[0]
    for _ in range(2):
        answer = _call(client, twin, POSTS["POST /graphql"], query, "q")
        assert answer.status_code == 200
        assert "idempotent-replayed" not in answer.headers
    public = {"query": "{ getHealth { timestamp } }"}
    times = {
        _call(client, twin, POSTS["POST /graphql"], public, "t").json()["data"]["getHealth"]["timestamp"] for _ in "ab"
    }
    assert len(times) == 2


def test_a_demoted_admin_is_not_told_again_what_an_admin_was(caller: tuple[TestClient, Twin], tenants: Any) -> None:
    client, twin = caller
    ask = {**twin.credentials["admin"], "Idempotency-Key": "k"}
    assert client.post("/api/keys", json={"name": "n"}, headers=ask).status_code == 201
    with psycopg.connect(tenants.url) as connection:
        connection.execute("UPDATE users SET role = 'user' WHERE id = 'boss'")
    within_5_seconds(403, lambda: client.post("/api/keys", json={"name": "n"}, headers=ask))
