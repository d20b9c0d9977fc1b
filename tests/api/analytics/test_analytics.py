"""`/api/analytics`: the same figures whether the pipeline has counted all, nothing or a part."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from starlette.testclient import TestClient

from api.tenants.service import delete_tenant
from feature_store.analytics_sinks import ModelAccuracy, ReleasedModel, record_accuracy, record_release
from tests.fixtures.backend import Backend
from tests.fixtures.people import person

COUNTED = ["never", "before", "after", "both"]
"""When the pipeline counts: not at all, before the second half of what happens, after everything, or twice."""
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def stats(client: TestClient) -> dict[str, Any]:
    answer = client.get("/api/analytics/stats")
    assert answer.status_code == 200, answer.text
    return answer.json()


def days(client: TestClient, period: str = "7d") -> dict[str, dict[str, Any]]:
    answer = client.get("/api/analytics/data", params={"period": period})
    assert answer.status_code == 200, answer.text
    return {day.pop("date"): day for day in answer.json()}


def on(days_ago: int, hour: int = 0) -> str:
    return (TODAY - timedelta(days=days_ago) + timedelta(hours=hour)).isoformat()


def date_of(days_ago: int) -> str:
    return (TODAY - timedelta(days=days_ago)).date().isoformat()


def flush(backend: Backend) -> None:
    """Write the impressions that wait."""
    backend.client.portal.call(backend.client.app.state.recommendations.impressions.flush)


def recommend(backend: Backend, user: str, count: int) -> UUID:
    answer = backend.client.post("/api/v1/recommend", json={"userId": user, "count": count, "excludeSeen": "none"})
    assert len(answer.json()) == count, answer.text
    flush(backend)
    return UUID(answer.headers["X-Recommendation-Id"])


def generate(backend: Backend, written: int, at: str) -> None:
    backend.sql(
        "INSERT INTO generation_jobs (tenant_id, id, algorithm, user_segment, count, status, users_total, "
        "recommendations_written, created_at, started_at) VALUES (%s, %s, 'hybrid', 'all', 5, 'completed', 9, %s, "
        "%s, %s)",
        [backend.tenant_id, uuid4(), written, at, at],
    )


@pytest.fixture
def items(backend: Backend) -> list[str]:
    names = [f"item-{n}" for n in range(6)]
    backend.add_items({name: {"title": name} for name in names})
    return names


def test_an_empty_tenant_has_the_fields_of_the_reference(admin: TestClient) -> None:
    assert stats(admin) == {
        "totalUsers": 1,  # who asks
        "totalItems": 0,
        "totalRecommendations": 0,
        "totalInteractions": 0,
        "activeModels": 0,
        "dailyActiveUsers": 0,
        "avgAccuracy": None,
    }


@pytest.mark.parametrize("counted", COUNTED)
def test_totals_count_everything_once(
    backend: Backend, admin: TestClient, items: list[str], roll_up: Callable[[], Any], counted: str
) -> None:
    backend.interact("ann", *items[:3])
    backend.interact("bob", items[0], timestamp=on(400))
    recommend(backend, "ann", 4)
    if counted in ("before", "both"):
        roll_up()
    backend.interact("bob", items[1])
    backend.interact("cid", items[1], items[2])
    recommend(backend, "eve", 2)  # asking alone makes no user
    generate(backend, 35, on(2))
    backend.add_items({"new": {}})
    backend.client.delete("/api/items/item-5")
    if counted in ("after", "both"):
        roll_up()
    assert stats(admin) == {
        "totalUsers": 4,
        "totalItems": 6,
        "totalRecommendations": 41,
        "totalInteractions": 7,
        "activeModels": 0,
        "dailyActiveUsers": 3,
        "avgAccuracy": None,
    }


@pytest.mark.parametrize("counted", COUNTED)
def test_days_count_each_active_user_once_by_the_time_of_the_event(
    backend: Backend, admin: TestClient, items: list[str], roll_up: Callable[[], Any], counted: str
) -> None:
    backend.interact("ann", *items[:2], timestamp=on(2, hour=0))
    backend.interact("ann", items[0], timestamp=on(3, hour=23))
    backend.interact("bob", items[0], timestamp=on(2, hour=12))
    generate(backend, 35, on(2))
    if counted in ("before", "both"):
        roll_up()
    backend.interact("ann", items[3], timestamp=on(2, hour=23))
    backend.interact("cid", items[0], items[1], timestamp=on(2, hour=1))
    backend.interact("cid", items[0])
    recommend(backend, "cid", 3)
    if counted in ("after", "both"):
        roll_up()
    found = days(admin)
    assert [found[date_of(ago)]["activeUsers"] for ago in (3, 2, 1, 0)] == [1, 3, 0, 1]
    assert [found[date_of(ago)]["totalRecommendations"] for ago in (3, 2, 1, 0)] == [0, 35, 0, 3]


@pytest.mark.parametrize(("period", "length"), [("7d", 7), ("30d", 30), ("90d", 90)])
def test_a_period_has_every_day_to_today_and_zeros_on_quiet_ones(admin: TestClient, period: str, length: int) -> None:
    found = days(admin, period)
    assert list(found) == [date_of(ago) for ago in reversed(range(length))]
    assert all(day == {"totalRecommendations": 0, "activeUsers": 0, "accuracy": None} for day in found.values())


def test_the_period_is_seven_days_where_it_is_left_out(admin: TestClient) -> None:
    assert admin.get("/api/analytics/data").json() == admin.get("/api/analytics/data?period=7d").json()


def test_the_first_day_of_the_longest_period_is_whole_after_counting(
    backend: Backend, admin: TestClient, items: list[str], roll_up: Callable[[], Any]
) -> None:
    backend.interact("ann", items[0], timestamp=on(89))
    backend.interact("bob", items[0], timestamp=on(90, hour=23))
    roll_up()
    backend.interact("ann", items[1], timestamp=on(89, hour=5))
    assert days(admin, "90d")[date_of(89)]["activeUsers"] == 1


@pytest.mark.parametrize("period", ["", "7", "1d", "7D", "90d ", "365d", "x" * 2000])
def test_another_period_is_a_problem(admin: TestClient, period: str) -> None:
    answer = admin.get("/api/analytics/data", params={"period": period})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == ["period"]


def test_champions_are_those_of_the_newest_release(backend: Backend, admin: TestClient) -> None:
    record_release(backend.url, "shop", "20260101-000000-000000", [ReleasedModel("hybrid", "1", 0.5)])
    record_release(
        backend.url,
        "shop",
        "20260102-000000-000000",
        [
            ReleasedModel("hybrid", "2", 0.9),
            ReleasedModel("collaborative", "1", 0.8),
            ReleasedModel("content-based", "1", None),  # nobody in its window could tell
        ],
    )
    found = stats(admin)
    assert (found["activeModels"], found["avgAccuracy"]) == (3, 0.85)


def test_the_accuracy_of_a_day_is_the_mean_over_its_users_and_models(backend: Backend, admin: TestClient) -> None:
    day = TODAY.date() - timedelta(days=1)
    record_accuracy(
        backend.url, "shop", day, "r1", [ModelAccuracy("hybrid", 0.9, 30), ModelAccuracy("collaborative", 0.7, 30)]
    )
    record_accuracy(
        backend.url, "shop", day, "r2", [ModelAccuracy("hybrid", 0.6, 0), ModelAccuracy("collaborative", 0.6, 0)]
    )
    record_accuracy(
        backend.url, "shop", day, "r2", [ModelAccuracy("hybrid", 0.5, 10), ModelAccuracy("collaborative", 0.3, 10)]
    )
    assert days(admin)[date_of(1)]["accuracy"] == pytest.approx((0.8 * 30 + 0.4 * 10) / 40)
    assert days(admin)[date_of(0)]["accuracy"] is None


@pytest.mark.parametrize("counted", [True, False])
def test_a_deleted_user_takes_its_part_of_the_figures_along(
    backend: Backend, admin: TestClient, items: list[str], roll_up: Callable[[], Any], counted: bool
) -> None:
    backend.interact("ann", *items[:3], timestamp=on(1))
    backend.interact("bob", items[0], timestamp=on(1))
    backend.interact("bob", items[0])
    if counted:
        roll_up()
    backend.interact("ann", items[4])
    recommend(backend, "ann", 2)
    for table, column in (("interactions", "user_id"), ("impressions", "user_id"), ("users", "id")):
        backend.sql(f"DELETE FROM {table} WHERE tenant_id = 'shop' AND {column} = 'ann'")
    for _ in range(2):
        found = stats(admin)
        assert (found["totalUsers"], found["totalInteractions"], found["dailyActiveUsers"]) == (2, 2, 1)
        assert found["totalRecommendations"] == 0
        assert days(admin)[date_of(1)]["activeUsers"] == 1
        roll_up()
    assert backend.sql("SELECT DISTINCT user_id FROM analytics_active_users") == [("bob",)]


def test_deleting_a_part_of_a_users_day_leaves_the_user_active(
    backend: Backend, admin: TestClient, items: list[str], roll_up: Callable[[], Any]
) -> None:
    backend.interact("ann", *items[:2], timestamp=on(1))
    roll_up()
    backend.sql("DELETE FROM interactions WHERE item_id = %s", [items[0]])
    assert (stats(admin)["totalInteractions"], days(admin)[date_of(1)]["activeUsers"]) == (1, 1)
    backend.sql("DELETE FROM interactions WHERE item_id = %s", [items[1]])
    assert (stats(admin)["totalInteractions"], days(admin)[date_of(1)]["activeUsers"]) == (0, 0)


def test_erased_impressions_are_taken_back(
    backend: Backend, admin: TestClient, items: list[str], roll_up: Callable[[], Any]
) -> None:
    recommend(backend, "ann", 3)
    recommend(backend, "bob", 2)
    roll_up()
    backend.sql("DELETE FROM impressions WHERE user_id = 'ann'")
    assert stats(admin)["totalRecommendations"] == 2
    assert days(admin)[date_of(0)]["totalRecommendations"] == 2


def test_what_commits_late_is_counted_once(
    backend: Backend, admin: TestClient, items: list[str], roll_up: Callable[[], Any]
) -> None:
    insert = (
        "INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, occurred_at) "
        "VALUES ('shop', gen_random_uuid(), %s, 'item-0', 'view', now())"
    )
    with psycopg.connect(backend.url) as late:
        late.execute(insert, ["late"])
        backend.sql(insert, ["early"])
        roll_up()  # while the first transaction is open
        assert (stats(admin)["totalInteractions"], stats(admin)["dailyActiveUsers"]) == (1, 1)
        late.commit()
    assert (stats(admin)["totalInteractions"], stats(admin)["dailyActiveUsers"]) == (2, 2)
    roll_up()
    assert (stats(admin)["totalInteractions"], stats(admin)["dailyActiveUsers"]) == (2, 2)


def test_items_are_counted_through_every_change(backend: Backend, admin: TestClient) -> None:
    backend.add_items({"a": {}, "b": {}})
    backend.client.patch("/api/items/a", json={"isActive": False})  # inactive ones are in the list too
    assert stats(admin)["totalItems"] == backend.client.get("/api/items").json()["total"] == 2
    backend.client.delete("/api/items/a")
    assert stats(admin)["totalItems"] == 1
    backend.client.post("/api/items", json={"id": "a", "metadata": {}})  # back again
    assert stats(admin)["totalItems"] == 2
    backend.interact("ann", "made-by-interaction", createItem=True)
    assert stats(admin)["totalItems"] == backend.client.get("/api/items").json()["total"] == 3


def test_a_tenant_sees_its_own_figures_alone(
    backend: Backend, admin: TestClient, items: list[str], roll_up: Callable[..., Any], tenants: Any
) -> None:
    tenants.create("rival")
    rival = Backend(TestClient(backend.client.app, raise_server_exceptions=False), backend.url, "rival")
    rival.client.portal = backend.client.portal
    rival.client.headers.update(tenants.key("rival"))
    rival.add_items({items[0]: {}})
    rival.interact("ann", items[0])
    backend.interact("ann", *items[:4])
    recommend(backend, "ann", 3)
    record_release(backend.url, "shop", "r1", [ReleasedModel("hybrid", "1", 0.9)])
    record_accuracy(backend.url, "shop", TODAY.date(), "r1", [ModelAccuracy("hybrid", 0.9, 1)])
    roll_up("shop")
    theirs = person(rival, "rival-boss", "admin", "rival")
    for _ in range(2):
        assert stats(theirs) == {
            "totalUsers": 2,
            "totalItems": 1,
            "totalRecommendations": 0,
            "totalInteractions": 1,
            "activeModels": 0,
            "dailyActiveUsers": 1,
            "avgAccuracy": None,
        }
        assert days(theirs)[date_of(0)] == {"totalRecommendations": 0, "activeUsers": 1, "accuracy": None}
        roll_up("rival")
    assert (stats(admin)["totalInteractions"], stats(admin)["activeModels"]) == (4, 1)


def test_a_deleted_tenant_leaves_nothing_and_is_not_counted_again(
    backend: Backend, admin: TestClient, items: list[str], roll_up: Callable[[], Any], tenants: Any
) -> None:
    recommend(backend, "ann", 3)
    backend.interact("ann", *items[:2])
    record_release(backend.url, "shop", "r1", [ReleasedModel("hybrid", "1", 0.9)])
    record_accuracy(backend.url, "shop", TODAY.date(), "r1", [ModelAccuracy("hybrid", 0.9, 1)])
    roll_up()
    tenants.run(lambda session: delete_tenant(session, "shop"))
    with pytest.raises(LookupError):
        roll_up()
    for table in (
        *("analytics_totals", "analytics_days", "analytics_active_users"),
        *("attributions", "release_models", "daily_accuracy"),
    ):
        assert backend.sql(f"SELECT count(*) FROM {table}") == [(0,)], table


@pytest.mark.parametrize("path", ["/api/analytics/stats", "/api/analytics/data", "/api/status"])
def test_only_an_administrator_may_read(backend: Backend, path: str) -> None:
    assert person(backend, "joe").get(path).status_code == 403
    assert backend.client.get(path).status_code == 401  # an API key is no person
    backend.client.headers.pop("X-API-Key")
    assert backend.client.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/api/analytics/stats", "/api/analytics/data", "/api/status"])
def test_the_document_has_a_summary_an_example_and_the_errors(client: TestClient, path: str) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"][path]["get"]
    assert operation["summary"]
    assert {"200", "401", "403", "429"} <= set(operation["responses"])
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    name = schema.get("items", schema)["$ref"].rsplit("/", 1)[-1]
    assert document["components"]["schemas"][name]["examples"]
