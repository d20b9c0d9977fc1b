"""What costs a unit and what does not, over HTTP; what is counted is in the database."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI

from api.http.principal import ReadKey
from api.metering.dependencies import Metered
from tests.fixtures.backend import Backend
from tests.fixtures.people import person
from tests.fixtures.usage import LIKE, units_of

GRAPHQL = """
{ a: getRecommendations(userId: "ann", count: 3) { itemId }
  b: getSimilarItems(itemId: "tea", count: 3) { itemId }
  c: getSimilarItems(itemId: "nothing", count: 3) { itemId }
  getApiVersion }
"""
RECORD = """
mutation { a: recordInteraction(userId: "ann", itemId: "tea", interactionType: "like") { success }
           b: recordInteraction(userId: "ann", itemId: "nothing", interactionType: "like") { success } }
"""


@pytest.fixture
def shop(backend: Backend) -> Backend:
    backend.add_items({"tea": {}, "salt": {}})
    return backend


@pytest.mark.parametrize(
    ("path", "body", "status", "units"),
    [
        ("/api/v1/recommend", {"userId": "ann", "count": 5}, 200, 1),  # by the fallback: degraded costs too
        ("/api/v1/similar", {"itemId": "tea", "count": 5}, 200, 1),
        ("/api/v1/interactions", LIKE, 201, 1),
        ("/api/v1/interactions/batch", [LIKE, LIKE, {**LIKE, "itemId": "nothing"}, {"userId": 7}, LIKE], 200, 3),
        ("/api/v1/interactions/batch", [{"userId": 7}], 200, 0),
        ("/graphql", {"query": GRAPHQL}, 200, 2),
        ("/graphql", {"query": RECORD}, 200, 1),
        ("/graphql", {"query": "{ getApiVersion getHealth { status } }"}, 200, 0),
    ],
)
def test_a_success_costs_what_it_did(shop: Backend, path: str, body: Any, status: int, units: int) -> None:
    shop.post(path, body, status)
    assert units_of(shop) == units
    shop.post(path, body, status)
    assert units_of(shop) == 2 * units


def test_recommendations_for_oneself_cost_one(shop: Backend) -> None:
    assert person(shop, "ann").get("/api/recommendations/my").status_code == 200
    assert units_of(shop) == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/recommend", {"userId": "ann", "count": 0}, 400),
        ("/api/v1/recommend", {"userId": "ann", "count": 3, "filter": {"$or": 1}}, 400),
        ("/api/v1/similar", {"itemId": "nothing", "count": 5}, 404),
        ("/api/v1/interactions", {**LIKE, "itemId": "nothing"}, 404),
        ("/api/v1/interactions/batch", {"interactions": []}, 400),
        ("/graphql", {"query": "{ nothing }"}, 400),
        ("/graphql", {"query": '{ getSimilarItems(itemId: "nothing", count: 1) { itemId } }'}, 200),
        ("/api/items", {"metadata": {}}, 201),  # writing the catalogue is free
        ("/api/items/batch", [{"metadata": {}}], 200),
    ],
)
def test_what_fails_or_is_not_metered_costs_nothing(shop: Backend, path: str, body: Any, status: int) -> None:
    shop.post(path, body, status)
    assert units_of(shop) == 0


def test_a_wrong_credential_costs_nobody(shop: Backend, tenants: Any) -> None:
    body = {"userId": "ann", "count": 3}
    for headers in ({"X-API-Key": "rk_" + "x" * 43}, tenants.key("shop", scopes=["write"])):
        assert shop.client.post("/api/v1/recommend", json=body, headers=headers).status_code in (401, 403)
    assert units_of(shop) == 0


def test_an_answer_that_breaks_costs_nothing(open_client: Any, tenants: Any) -> None:
    def add(app: FastAPI) -> None:
        @app.get("/broken")
        async def broken(key: ReadKey, usage: Metered, fail: bool) -> str:
            usage.count()
            if fail:
                raise RuntimeError("after it was counted")
            return "done"

    key = tenants.key(tenants.create("shop"))
    with open_client(adapt=add) as client:
        client.headers.update(key)
        backend = Backend(client, tenants.url, "shop")
        assert client.get("/broken", params={"fail": True}).status_code == 500
        assert units_of(backend) == 0
        assert client.get("/broken", params={"fail": False}).status_code == 200
        assert units_of(backend) == 1


@pytest.mark.parametrize(
    ("path", "body", "units"),
    [
        ("/api/v1/interactions", LIKE, 1),
        ("/api/v1/interactions/batch", [LIKE] * 4, 4),
        ("/graphql", {"query": RECORD}, 1),
    ],
)
def test_a_replay_costs_nothing(shop: Backend, path: str, body: Any, units: int) -> None:
    answers = [shop.client.post(path, json=body, headers={"Idempotency-Key": "k"}) for _ in range(3)]
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true"]
    assert units_of(shop) == units


def test_twins_at_once_cost_one(shop: Backend) -> None:
    def post(_: int) -> int:
        return shop.client.post("/api/v1/interactions", json=LIKE, headers={"Idempotency-Key": "k"}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(post, range(8))) == {201}
    assert shop.sql("SELECT count(*) FROM interactions") == [(1,)]
    assert units_of(shop) == 1


def test_tenants_pay_for_themselves(shop: Backend, tenants: Any) -> None:
    other = tenants.key(tenants.create("other"))
    for headers in ({}, other, other):
        assert shop.client.post("/api/v1/recommend", json={"userId": "a", "count": 1}, headers=headers).is_success
    assert units_of(shop) == 1
    assert shop.sql("SELECT units FROM usage_cycles WHERE tenant_id = 'other'") == [(2,)]


def test_usage_is_written_when_the_process_ends_and_goes_on_after_a_restart(open_client: Any, tenants: Any) -> None:
    key = tenants.key(tenants.create("shop"))
    for total in (2, 4):
        with open_client() as client:
            backend = Backend(client, tenants.url, "shop")
            for _ in range(2):
                assert client.post("/api/v1/recommend", json={"userId": "a", "count": 1}, headers=key).is_success
        assert backend.sql("SELECT units FROM usage_cycles") == [(total,)]
        assert backend.sql("SELECT count(*) FROM usage_flushes") == [(0,)]


def test_a_deleted_tenant_leaves_no_usage(shop: Backend, tenants: Any) -> None:
    from api.tenants.service import delete_tenant

    shop.post("/api/v1/recommend", {"userId": "ann", "count": 1})
    tenants.run(lambda session: delete_tenant(session, "shop"))
    assert units_of(shop) == 0
    assert shop.sql("SELECT count(*) FROM usage_cycles") == [(0,)]
