"""`GET /api/analytics/recommendations`: what came of answers, against figures that were worked out by hand."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from starlette.testclient import TestClient

from api.analytics import recommendation_figures
from api.analytics.intervals import FollowedSums, followed_rate
from api.analytics.turns import CountingTurns
from api.database.scope import TenantScope
from tests.fixtures.backend import Backend

NOW = datetime.now(UTC)


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def show(backend: Backend, user: str, items: list[str], hours: float, **more: Any) -> UUID:
    row = {
        "tenant_id": backend.tenant_id,
        "recommendation_id": uuid4(),
        "user_id": user,
        "algorithm": "popularity" if more.get("holdout") else "hybrid",
        "item_ids": items,
        "scores": [0.5] * len(items),
        "created_at": ago(hours),
        **more,
    }
    places = ", ".join(["%s"] * len(row))
    backend.sql(f"INSERT INTO impressions ({', '.join(row)}) VALUES ({places})", list(row.values()))
    return UUID(str(row["recommendation_id"]))


def act(
    backend: Backend, user: str, item: str, type_: str, hours: float, value: float | None = None, named: Any = None
) -> None:
    backend.sql(
        "INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, value, occurred_at, "
        "recommendation_id) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [backend.tenant_id, uuid4(), user, item, type_, value, ago(hours), named],
    )


def figures(admin: TestClient, **query: Any) -> Any:
    answer = admin.get("/api/analytics/recommendations", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def traffic(backend: Backend) -> Backend:
    """Ann and bob are recommended to by models, cid is held out. `b` is new, `e` is deleted, nobody sees `d`."""
    backend.add_items({item: {} for item in "abcde"})
    backend.sql("UPDATE items SET created_at = now() - interval '100 days' WHERE id <> 'b'")
    backend.client.delete("/api/items/e").raise_for_status()
    show(backend, "ann", ["a"], 24 * 10)
    show(backend, "ann", ["a", "b"], 50, scenario="home", scenario_version=1, release="r1", milliseconds=10)
    show(backend, "ann", ["a"], 30, release="r1", milliseconds=20)
    named = show(backend, "bob", ["b", "c"], 30, algorithm="collaborative", release="r1", milliseconds=30)
    show(backend, "bob", ["e"], 10, release="r2")
    show(backend, "cid", ["a"], 30, holdout=True, milliseconds=5)
    show(backend, "cid", ["b"], 20, holdout=True, milliseconds=5)
    act(backend, "ann", "a", "click", 24 * 10 - 1)  # follows an answer of ten days ago
    act(backend, "ann", "a", "view", 29)  # follows the newer of two
    act(backend, "ann", "b", "purchase", 49, value=0.75)
    act(backend, "ann", "d", "purchase", 1)  # was not shown
    act(backend, "bob", "b", "click", 1, named=named)  # says so itself, 29 hours later
    act(backend, "bob", "c", "purchase", 2)  # 28 hours later
    act(backend, "cid", "a", "purchase", 28)
    act(backend, "dan", "a", "purchase", 28)  # was shown nothing
    return backend


@pytest.mark.parametrize("counted", [False, True], ids=["by-nobody", "by-the-pipeline"])
def test_figures_are_those_worked_out_by_hand(
    traffic: Backend, admin: TestClient, roll_up: Callable[[], Any], counted: bool
) -> None:
    if counted:
        roll_up()
    treated = {
        "users": 2,
        "shown": 4,
        "itemsShown": 6,
        "seen": 0,
        "itemsSeen": 0,
        "followed": 3,
        # ann follows 2 of 2, bob 1 of 2: the variance of 0.75 is 2 * (0.5^2 + 0.5^2) / 4^2 = 1 / 16, that of three
        # independent answers.
        "rate": {"value": 0.75, "low": 0.256093, "high": 0.963159},
        "interactions": 3,
        "purchases": 1,
        "value": 0.75,
        "coverage": 0.75,  # a, b and c of a, b, c and d
        "newItems": 0.333333,  # b, twice
        "latencyMs": {"p50": 20.0, "p95": 29.0},
    }
    found = figures(admin)
    holdout, difference = found.pop("holdout"), found.pop("difference")
    assert found == {**rounded(treated), "windowHours": 24}
    assert holdout == {
        **{"users": 1, "shown": 2, "itemsShown": 2, "seen": 0, "itemsSeen": 0, "followed": 1},
        "rate": {"value": 0.5, "low": 0.054621, "high": 0.945379},  # as of one independent answer
        **{"interactions": 1, "purchases": 1, "value": 1.0, "coverage": 0.5, "newItems": 0.5},
        "latencyMs": {"p50": 5.0, "p95": 5.0},
    }
    assert difference == pytest.approx({"value": 0.25, "low": -0.415062, "high": 0.743761}, abs=2e-6)
    longer = figures(admin, windowHours=48)
    assert {name: longer[name] for name in ("followed", "interactions", "purchases", "value", "windowHours")} == {
        **{"followed": 3, "interactions": 4, "purchases": 2, "value": 1.75, "windowHours": 48}
    }
    shorter = figures(admin, windowHours=1)  # the bounds of a window: 1 hour before is out, and a named answer stays
    assert (shorter["followed"], shorter["interactions"], shorter["holdout"]["followed"]) == (1, 1, 0)
    assert [figures(admin, period=period)["shown"] for period in ("7d", "30d", "90d")] == [4, 5, 5]


def rounded(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "rate": pytest.approx(found["rate"], abs=2e-6)}


def test_a_filter_selects_answers_and_leaves_the_holdout_to_its_own(traffic: Backend, admin: TestClient) -> None:
    for query, shown, followed, held_out in (
        ({"scenario": "home"}, 1, 1, 0),
        ({"family": "collaborative"}, 1, 1, 2),
        ({"family": "hybrid", "release": "r1"}, 2, 2, 2),
        ({"release": "r2"}, 1, 0, 2),
    ):
        found = figures(admin, **query)
        assert (found["shown"], found["followed"], found["holdout"]["shown"]) == (shown, followed, held_out), query
    traffic.sql("INSERT INTO scenarios VALUES (%s, 'idle', 'Idle', 'draft', 1)", [traffic.tenant_id])
    nothing = figures(admin, scenario="idle")
    assert (nothing["rate"], nothing["difference"], nothing["newItems"], nothing["coverage"]) == (None, None, None, 0)


def test_a_segment_selects_its_users_and_what_the_tenant_has_not_is_not_found(
    traffic: Backend, admin: TestClient, tenants: Any
) -> None:
    tenants.create("other")
    segments = {}
    for tenant, kind in ((traffic.tenant_id, "users"), (traffic.tenant_id, "items"), ("other", "users")):
        ((segments[tenant, kind],),) = traffic.sql(
            "INSERT INTO segments (tenant_id, name, kind) VALUES (%s, 'some', %s) RETURNING id::text", [tenant, kind]
        )
    ours = segments[traffic.tenant_id, "users"]
    traffic.sql("INSERT INTO users (tenant_id, id) VALUES (%s, 'bob'), (%s, 'cid')", [traffic.tenant_id] * 2)
    for user in ("bob", "cid"):
        traffic.sql("INSERT INTO segment_users VALUES (%s, %s, %s)", [traffic.tenant_id, ours, user])
    found = figures(admin, segment=ours)
    assert (found["users"], found["shown"], found["followed"], found["holdout"]["shown"]) == (1, 2, 1, 2)
    for query, status in (
        ({"segment": segments["other", "users"]}, 404),
        ({"segment": segments[traffic.tenant_id, "items"]}, 400),
        ({"scenario": "none"}, 404),
    ):
        assert admin.get("/api/analytics/recommendations", params=query).status_code == status, query


@pytest.mark.parametrize("counted", [False, True], ids=["by-nobody", "by-the-pipeline"])
def test_where_it_is_known_what_was_seen_the_rest_was_not_shown(
    backend: Backend, admin: TestClient, roll_up: Callable[[], Any], counted: bool
) -> None:
    older, newer = show(backend, "ann", ["a", "b"], 5), show(backend, "ann", ["a", "b"], 4)
    backend.sql("INSERT INTO seen_impressions VALUES (%s, %s, 'b', 1)", [backend.tenant_id, newer])
    act(backend, "ann", "a", "click", 3)  # of the newer answer ann saw `b` alone
    if counted:
        roll_up()
    found = figures(admin)
    assert (found["shown"], found["seen"], found["itemsSeen"], found["followed"]) == (2, 1, 1, 1)
    act(backend, "ann", "b", "click", 2)
    act(backend, "ann", "a", "click", 2, named=newer)  # what an interaction says itself holds
    assert figures(admin)["followed"] == 2
    roll_up()
    attributed = backend.sql("SELECT recommendation_id, count(*) FROM attributions GROUP BY 1")
    assert dict(attributed) == {older: 1, newer: 2}


def test_only_an_administrator_gets_them_and_only_of_its_tenant(
    traffic: Backend, admin: TestClient, tenants: Any
) -> None:
    tenants.create("other")
    traffic.sql("UPDATE impressions SET tenant_id = 'other' WHERE user_id = 'ann'")
    assert (figures(admin)["users"], figures(admin)["followed"]) == (1, 1)
    assert traffic.client.get("/api/analytics/recommendations").status_code == 401
    for query in ({"windowHours": 0}, {"windowHours": 337}, {"period": "8d"}, {"family": "none"}):
        assert admin.get("/api/analytics/recommendations", params=query).status_code == 400


def test_figures_that_take_too_long_are_refused_with_advice(
    traffic: Backend, admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommendation_figures, "STATEMENT_SECONDS", 0.2)
    with psycopg.connect(traffic.url) as blocking, blocking.transaction():
        blocking.execute("LOCK TABLE impressions IN ACCESS EXCLUSIVE MODE")
        answer = admin.get("/api/analytics/recommendations")
    assert (answer.status_code, "shorter period" in answer.json()["detail"]) == (503, True)


def test_answers_of_few_users_say_less_than_as_many_of_many() -> None:
    def width(sums: FollowedSums) -> float:
        found = followed_rate(sums)
        assert found is not None
        return found.high - found.low

    one_each = FollowedSums(users=100, shown=100, followed=50, shown_squared=100, followed_squared=50, product=50)
    all_or_nothing = FollowedSums(  # ten answers each; half of the users follow all of theirs
        users=10, shown=100, followed=50, shown_squared=1_000, followed_squared=500, product=500
    )
    assert width(all_or_nothing) > 2.5 * width(one_each)
    nothing = FollowedSums(users=10, shown=1_000, followed=0, shown_squared=100_000, followed_squared=0, product=0)
    assert followed_rate(nothing).high == pytest.approx(0.2775, abs=1e-4)  # type: ignore[union-attr]


def test_few_are_counted_at_once_and_one_of_a_tenant() -> None:
    """Twenty that count for twenty seconds would leave nobody else a connection."""

    async def most_at_once(tenants: int) -> int:
        turns, running, most = CountingTurns(at_once=4), 0, 0

        async def count(number: int) -> None:
            nonlocal running, most
            async with turns.turn(TenantScope(f"tenant-{number % tenants}")):
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1

        await asyncio.gather(*(count(number) for number in range(20)))
        return most

    assert [asyncio.run(most_at_once(tenants)) for tenants in (1, 3, 20)] == [1, 3, 4]


def test_who_finds_no_turn_is_told_to_ask_again(backend: Backend, admin: Any) -> None:
    backend.client.app.state.counting_turns = CountingTurns(at_once=0, seconds=0.01)  # type: ignore[attr-defined]
    answer = admin.get("/api/analytics/recommendations")
    assert (answer.status_code, "ask again" in answer.json()["detail"]) == (503, True)
