"""402: beyond the budget of the cycle metered requests are refused with advice, and all others are answered."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import floor
from typing import Any

import pytest

from api.http.schemas import rfc3339
from api.metering.cycles import cycle_of
from tests.fixtures.backend import Backend
from tests.fixtures.people import person
from tests.fixtures.platform import wait_until
from tests.fixtures.usage import LIKE, on_plan, set_used, subscribe, units_of

ASK = {"userId": "ann", "count": 1}
NEXT = rfc3339(cycle_of(None, datetime.now(UTC)).end)


@pytest.fixture
def spent(open_client: Any, tenants: Any) -> Iterator[Backend]:
    """A tenant of the plan `free` that has used all of it."""
    with on_plan(open_client, tenants, "free", used=1_000) as backend:
        yield backend


def usage(backend: Backend) -> Any:
    answer = person(backend, "reader").get("/api/billing/usage")
    assert answer.status_code == 200, answer.text
    return answer.json()


def status_of(backend: Backend) -> int:
    return backend.client.post("/api/v1/recommend", json=ASK).status_code


def plan_of(backend: Backend) -> str:
    """By which the process serves the tenant."""
    return str(backend.client.portal.call(backend.client.app.state.meter.terms_of, "shop").plan.id)


def test_the_last_request_of_the_limit_is_answered_and_the_next_is_not(open_client: Any, tenants: Any) -> None:
    with on_plan(open_client, tenants, "free", used=998) as shop:
        assert [status_of(shop) for _ in range(4)] == [200, 200, 402, 402]
        assert units_of(shop) == 1_000


def test_a_refusal_is_a_problem_that_says_what_to_do(spent: Backend) -> None:
    answer = spent.client.post("/api/v1/recommend", json=ASK)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "retry-after" not in answer.headers
    body = answer.json()
    assert (body["status"], body["title"]) == (402, "Payment Required")
    assert body["detail"] == (
        "The 1,000 requests of this cycle are used, and the plan Free sells no more: choose a larger plan "
        f"(POST /api/billing/checkout or /api/billing/portal), or wait for the next cycle, which starts at {NEXT}"
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/recommend", ASK),
        ("/api/v1/similar", {"itemId": "tea", "count": 1}),
        ("/api/v1/interactions", LIKE),
        ("/api/v1/interactions/batch", [LIKE]),
    ],
)
def test_every_metered_route_of_backends_is_refused(spent: Backend, path: str, body: Any) -> None:
    spent.post(path, body, 402)
    assert spent.sql("SELECT count(*) FROM interactions") == [(0,)]
    assert units_of(spent) == 1_000


def test_those_of_people_are_too_and_nothing_is_generated(spent: Backend) -> None:
    boss = person(spent, "boss", "admin")
    assert boss.get("/api/recommendations/my").status_code == 402
    assert boss.post("/api/recommendations/generate", json={"algorithm": "hybrid"}).status_code == 402
    assert spent.sql("SELECT count(*) FROM generation_jobs") == [(0,)]


def test_what_is_not_metered_goes_on(spent: Backend) -> None:
    spent.post("/api/items", {"metadata": {}}, 201)
    assert spent.client.get("/api/items").status_code == 200
    assert person(spent, "boss", "admin").get("/api/users").status_code == 200
    assert usage(spent)["budgetExceeded"] is True


def test_graphql_says_402_in_its_extensions_and_answers_what_is_free(spent: Backend) -> None:
    query = '{ getApiVersion getRecommendations(userId: "ann", count: 1) { itemId } }'
    body = spent.post("/graphql", {"query": query})
    assert body["data"] == {"getApiVersion": "1", "getRecommendations": None}
    (error,) = body["errors"]
    assert (error["extensions"]["status"], error["extensions"]["code"]) == (402, "PAYMENT_REQUIRED")
    assert NEXT in error["message"]


def test_fields_of_one_operation_share_what_is_left(open_client: Any, tenants: Any) -> None:
    record = 'recordInteraction(userId: "ann", itemId: "tea", interactionType: "view") { success }'
    similar = 'getSimilarItems(itemId: "tea", count: 1) { itemId }'
    with on_plan(open_client, tenants, "free", used=996) as shop:
        for document in (f"mutation {{ a: {record} b: {record} }}", f"{{ a: {similar} b: {similar} c: {similar} }}"):
            body = shop.post("/graphql", {"query": document})
        assert [error["extensions"]["status"] for error in body["errors"]] == [402]
        assert sum(value is not None for value in body["data"].values()) == 2
        assert units_of(shop) == 1_000


def test_a_replay_is_answered_though_the_budget_is_spent(open_client: Any, tenants: Any) -> None:
    key = {"Idempotency-Key": "k"}
    with on_plan(open_client, tenants, "free", used=999) as shop:
        assert shop.client.post("/api/v1/interactions", json=LIKE, headers=key).status_code == 201
        refused = shop.client.post("/api/v1/interactions", json=LIKE, headers={"Idempotency-Key": "other"})
        assert refused.status_code == 402
        assert shop.client.post("/api/v1/interactions", json=LIKE, headers=key).status_code == 201
        set_used(shop, 0)  # as if another cycle had begun: a refusal is not kept
        wait_until(
            "the process to know",
            lambda: (
                shop.client.post("/api/v1/interactions", json=LIKE, headers={"Idempotency-Key": "other"}).status_code
                == 201
            ),
        )


def test_overage_accrues_up_to_the_cap_and_goes_on_once_it_is_raised(open_client: Any, tenants: Any) -> None:
    with on_plan(open_client, tenants, "plan-starter", used=18_332) as shop:
        # 60 cents for 100: the plan's cap of 50.00 is reached by 8,334 units.
        assert [status_of(shop) for _ in range(3)] == [200, 200, 402]
        assert usage(shop) | {"lastRequestAt": None} == {
            "requestsUsed": 18_334,
            "requestLimit": 10_000,
            "percentUsed": 183.34,
            "overageUnits": 8_334,
            "overageAmount": 50.0,
            "overageBudgetCap": 50,
            "budgetExceeded": True,
            "itemsUsed": 1,
            "itemsLimit": 1_000,
            "usersUsed": 0,
            "usersLimit": 500,
            "lastRequestAt": None,
        }
        detail = shop.post("/api/v1/recommend", ASK, 402)["detail"]
        assert detail == (
            "Overage has reached the budget cap of 50.00 for this cycle: raise the cap (PUT /api/billing/overage-cap), "
            f"or wait for the next cycle, which starts at {NEXT}"
        )
        shop.sql("INSERT INTO billing_settings (tenant_id, overage_cap_cents) VALUES ('shop', 5001)")
        wait_until("the process to know the cap", lambda: status_of(shop) == 200)
        found = usage(shop)
        assert (found["overageBudgetCap"], found["overageUnits"], found["overageAmount"]) == (50.01, 8_335, 50.01)


def test_what_the_counters_overshot_is_shown_and_never_charged(open_client: Any, tenants: Any) -> None:
    with on_plan(open_client, tenants, "plan-starter", used=1_000_000) as shop:
        found = usage(shop)
        assert (found["overageUnits"], found["overageAmount"], found["budgetExceeded"]) == (990_000, 50.0, True)


def test_without_a_limit_nothing_is_refused(open_client: Any, tenants: Any) -> None:
    with on_plan(open_client, tenants, "unlimited", used=10**9) as shop:
        assert status_of(shop) == 200
        found = usage(shop)
        assert (found["requestsUsed"], found["requestLimit"], found["percentUsed"]) == (10**9 + 1, None, 0.0)
        assert (found["overageUnits"], found["overageAmount"], found["overageBudgetCap"]) == (0, 0.0, 0)
        assert (found["budgetExceeded"], found["itemsLimit"], found["usersLimit"]) == (False, None, None)


def test_before_the_first_request_there_is_no_last_one(open_client: Any, tenants: Any) -> None:
    key = tenants.key(tenants.create("shop", plan="free"))
    with open_client() as client:
        client.headers.update(key)
        found = usage(Backend(client, tenants.url, "shop"))
    assert (found["requestsUsed"], found["lastRequestAt"], found["requestLimit"]) == (0, None, 1_000)


def test_the_last_request_is_the_last_metered_one(open_client: Any, tenants: Any) -> None:
    with on_plan(open_client, tenants, "free") as shop:
        before = datetime.now(UTC)
        assert status_of(shop) == 200
        after = datetime.now(UTC)
        shop.post("/api/v1/recommend", {}, 400)
        assert before <= datetime.fromisoformat(usage(shop)["lastRequestAt"]) <= after


def test_when_the_cycle_turns_requests_are_answered_again(spent: Backend) -> None:
    meter, end = spent.client.app.state.meter, cycle_of(None, datetime.now(UTC)).end
    meter.now = lambda: end - timedelta(microseconds=1)
    assert status_of(spent) == 402
    meter.now = lambda: end
    assert status_of(spent) == 200
    assert units_of(spent) == 1_001
    assert spent.sql("SELECT cycle_start, units FROM usage_cycles ORDER BY 1 DESC LIMIT 1") == [(end, 1)]
    assert usage(spent)["requestsUsed"] == 1


def test_a_subscription_begins_a_cycle_with_its_limit_and_its_end_leaves_the_free_one(spent: Backend) -> None:
    assert status_of(spent) == 402
    subscribe(spent, "plan-growth", anchor=datetime.now(UTC) - timedelta(days=1))
    wait_until("the process to know the plan", lambda: status_of(spent) == 200)
    found = usage(spent)
    assert (found["requestsUsed"], found["requestLimit"], found["itemsLimit"]) == (1, 100_000, 10_000)
    subscribe(spent, "plan-growth", status="canceled")
    wait_until("the process to know the end", lambda: status_of(spent) == 402)
    assert usage(spent)["requestLimit"] == 1_000


def test_after_a_downgrade_in_mid_cycle_limit_and_price_are_the_means_of_both_plans(
    open_client: Any, tenants: Any
) -> None:
    """Half of the month on Growth, then down: from that moment on the other half is taken to be Starter's."""
    now = datetime.now(UTC)
    anchor = now - timedelta(days=14)
    month = cycle_of(anchor, now)
    with on_plan(open_client, tenants, "free") as shop:
        subscribe(shop, "plan-growth", anchor=anchor)
        set_used(shop, 100_099, anchor)
        wait_until("the process to know the plan", lambda: plan_of(shop) == "plan-growth")
        assert status_of(shop) == 200
        assert usage(shop)["overageAmount"] == 0.2
        subscribe(shop, "plan-starter", anchor=anchor)
        ((changed,),) = shop.sql("SELECT max(started_at) FROM plan_periods")
        share = Fraction(
            (changed - anchor) // timedelta(microseconds=1), (month.end - anchor) // timedelta(microseconds=1)
        )
        limit = floor(100_000 * share + 10_000 * (1 - share))
        wait_until("the cap to be reached", lambda: status_of(shop) == 402)
        found = usage(shop)
        assert (found["requestLimit"], found["overageUnits"], found["overageAmount"]) == (
            limit,
            units_of(shop) - limit,
            50.0,
        )
        assert (found["itemsLimit"], found["overageBudgetCap"]) == (1_000, 50)


def test_who_reads_usage_needs_a_token_and_no_more(spent: Backend) -> None:
    assert spent.client.get("/api/billing/usage").status_code == 401  # a key
    assert usage(spent)["requestsUsed"] == 1_000
