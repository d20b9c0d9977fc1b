"""`/api/scenarios`: who may write them, what a version is, which version requests get, and what is refused."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from psycopg_pool import PoolClosed
from pydantic import ValidationError

from api.database.engine import Database
from api.database.scope import TenantScope
from api.scenarios import service
from api.scenarios.live import LiveScenario, LiveScenarios
from api.scenarios.recipe import MAX_RECIPE_BYTES, Recipe
from api.tenants.service import delete_tenant
from tests.fixtures.portal import Portal

PATH = "/api/scenarios"
SCOPE = TenantScope("acme")


class Desk:
    """A product manager's calls."""

    def __init__(self, portal: Portal, tenant: str = "acme") -> None:
        self.portal, self.headers = portal, portal.admin(tenant)

    def call(self, method: str, path: str = "", status: int = 200, body: Any = None, **query: Any) -> Any:
        content = {} if body is None else {"json": body}
        answer = self.portal.client.request(method, PATH + path, headers=self.headers, params=query, **content)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def made(self, **body: Any) -> Any:
        return self.call("POST", status=201, body={"id": "front", "name": "Front page", **body})


@pytest.fixture
def desk(portal: Portal) -> Desk:
    return Desk(portal)


def read_live(portal: Portal, *steps: Callable[[], Any], kept: int = 10) -> list[LiveScenario | None]:
    """The scenario `front` as one process reads it, before the steps and after each, with the edition of the time."""

    async def run() -> list[LiveScenario | None]:
        database = Database(portal.tenants.url, pool_min=1)
        await database.open()
        try:
            live = LiveScenarios(database.pool, kept=kept)
            read = []
            for step in (lambda: None, *steps):
                await asyncio.to_thread(step)
                ((edition,),) = portal.sql("SELECT scenario_edition FROM tenants WHERE id = 'acme'")
                read.append(await live.get(SCOPE, "front", edition))
            return read
        finally:
            await database.close()

    return asyncio.run(run())


def test_each_change_of_a_recipe_is_a_version_and_a_name_or_status_is_none(desk: Desk) -> None:
    made = desk.made(filter={"brand": "A"})
    assert list(made)[:6] == ["id", "name", "version", "status", "liveVersion", "source"]
    assert (made["version"], made["status"], made["liveVersion"], made["source"]) == (1, "draft", None, "hybrid")
    assert {**desk.call("GET", "/front"), "warnings": []} == made
    named = desk.call("PATCH", "/front", body={"name": "Start page", "status": "live"})
    assert (named["version"], named["liveVersion"], named["filter"]) == (1, 1, {"brand": "A"})
    capped = desk.call("PATCH", "/front", body={"filter": {"kind": "B"}, "caps": [{"field": "brand", "atMost": 2}]})
    assert (capped["version"], capped["liveVersion"], capped["filter"]) == (2, 2, {"kind": "B"})  # replaced, not merged
    waiting = desk.call("PUT", "/front", body={"name": "Start page", "source": "popular"}, publish=False)
    assert (waiting["version"], waiting["liveVersion"], waiting["caps"]) == (3, 2, [])
    assert desk.call("PUT", "/front", body=waiting, publish=False)["version"] == 3  # what was shown can be sent back
    assert desk.call("PATCH", "/front", body={"status": "live"})["liveVersion"] == 3
    versions = desk.call("GET", "/front/versions")
    assert [(each["version"], each["source"]) for each in versions["data"]] == [
        (3, "popular"),
        (2, "hybrid"),
        (1, "hybrid"),
    ]
    assert desk.call("PATCH", "/front", body={"status": "archived", "source": None})["liveVersion"] is None
    entries = desk.portal.client.get("/api/audit", params={"action": "scenario"}, headers=desk.headers).json()["data"]
    assert [entry["detail"].get("changed") for entry in reversed(entries)] == [
        *(None, [], ["caps", "filter"], ["caps", "filter", "source"], [], ["source"])
    ]
    assert {entry["target"] for entry in entries} == {"front"}
    assert "Start page" not in str(entries)


def test_what_requests_get_is_right_at_once_in_a_process_that_has_kept_it(desk: Desk) -> None:
    """And it is the live version alone, whatever is drafted beside it."""

    def patch(publish: bool = True, **body: Any) -> Callable[[], Any]:
        return lambda: desk.call("PATCH", "/front", body=body, publish=publish)

    read = read_live(
        desk.portal,
        lambda: desk.made(source="popular"),
        patch(status="live"),
        patch(source="latest"),
        patch(publish=False, source="trending"),
        patch(status="archived"),
        patch(status="live"),
        lambda: desk.call("DELETE", "/front", 204),
    )
    assert [each and (each.version, each.recipe.source) for each in read] == [
        *(None, None, (1, "popular"), (2, "latest"), (2, "latest"), None, (3, "trending"), None)
    ]


def test_a_kept_scenario_needs_no_query_and_few_are_kept(desk: Desk) -> None:
    for name in ("front", "second"):
        desk.made(id=name, status="live")

    async def run() -> None:
        database = Database(desk.portal.tenants.url, pool_min=1)
        await database.open()
        live = LiveScenarios(database.pool, kept=1)
        assert await live.get(SCOPE, "second", 2) is not None
        assert await live.get(TenantScope("other"), "front", 2) is None
        first = await live.get(SCOPE, "front", 2)
        await database.close()
        assert first is not None
        assert await live.get(SCOPE, "front", 2) is first  # there is no database to ask
        with pytest.raises(PoolClosed):
            await live.get(SCOPE, "second", 2)

    asyncio.run(run())


def test_a_recipe_that_cannot_be_read_fails_for_its_own_tenant_alone(desk: Desk) -> None:
    """Requests of several tenants share one read."""
    desk.made(status="live")
    Desk(desk.portal, "other").made(status="live")
    desk.portal.sql("UPDATE scenario_versions SET recipe = '{\"caps\": 1}' WHERE tenant_id = 'acme'")

    async def run() -> list[Any]:
        database = Database(desk.portal.tenants.url, pool_min=1)
        await database.open()
        live = LiveScenarios(database.pool)
        both = [live.get(TenantScope(tenant), "front") for tenant in ("acme", "other")]
        found = await asyncio.gather(*both, return_exceptions=True)
        await database.close()
        return found

    ours, theirs = asyncio.run(run())
    assert isinstance(ours, ValidationError) and theirs.version == 1


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_preview_at_a_moment_without_a_local_time_is_a_400(desk: Desk, at: str) -> None:
    window = {"days": ["mon"], "timeZone": "Pacific/Kiritimati"}
    desk.made(boosts=[{"filter": {}, "factor": 2.0, "windows": [window]}])
    problem = desk.call("POST", "/front/preview", 400, {"userIds": ["ann"], "at": at})
    assert problem["errors"][0]["field"] == "at"


def test_only_administrators_of_the_tenant_reach_them(desk: Desk) -> None:
    desk.made(status="live")
    portal, other = desk.portal, Desk(desk.portal, "other")
    portal.person("member@acme.example")
    for headers, status in (({}, 401), (portal.tenants.key("acme"), 401), (portal.login("member@acme.example"), 403)):
        for method, path in (("GET", ""), ("POST", ""), ("PUT", "/front"), ("PATCH", "/front"), ("DELETE", "/front")):
            body = {} if method in ("GET", "DELETE") else {"json": {"name": "Mine"}}
            answer = portal.client.request(method, PATH + path, headers=headers, **body)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    for method, body in (("GET", None), ("PUT", {"name": "Mine"}), ("PATCH", {"name": "Mine"}), ("DELETE", None)):
        other.call(method, "/front", 404, body)
    assert other.call("GET")["total"] == 0
    other.made()  # ids are each tenant's own
    assert desk.call("GET", "/front")["status"] == "live"
    portal.tenants.run(lambda session: delete_tenant(session, "other"))
    assert portal.sql("SELECT tenant_id FROM scenario_versions") == [("acme",)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"boosts": [{"filter": {}, "factor": 2.0, "colour": 1}]}, "boosts.0.colour"),
        ({"filter": {"price": {"$near": 1}}}, "filter"),
        ({"source": "nowhere"}, "source"),
        ({"status": "published"}, "status"),
        ({"name": " "}, "name"),
        ({"name": None}, "name"),
        ({"pins": [{"position": 0, "item": "a"}]}, "pins.0.position"),
    ],
)
def test_what_is_no_scenario_is_a_400_that_names_the_field(desk: Desk, body: dict[str, Any], field: str) -> None:
    desk.made()
    whole = {"name": "Front page", **body}
    for method, path, sent in (("POST", "", whole), ("PUT", "/front", whole), ("PATCH", "/front", body)):
        problem = desk.call(method, path, 400, sent)
        assert problem["errors"][0]["field"] == field
    assert desk.call("GET")["total"] == 1
    assert desk.call("GET", "/front")["version"] == 1


def test_a_post_that_is_sent_again_makes_one_and_an_id_that_is_taken_none(desk: Desk) -> None:
    headers = {**desk.headers, "Idempotency-Key": "once"}
    answers = [desk.portal.client.post(PATH, json={"name": "Generated"}, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert desk.call("GET")["total"] == 1
    desk.made()
    desk.call("POST", status=409, body={"id": "front", "name": "Again"})


def test_an_id_that_is_used_again_goes_on_with_its_versions(desk: Desk) -> None:
    """Or `front@1` would name two recipes, and figures by version would mix them."""
    desk.made(source="popular")
    desk.call("PATCH", "/front", body={"source": "latest"})
    Desk(desk.portal, "other").made()
    for version in (3, 4):
        desk.call("DELETE", "/front", 204)
        again = desk.made(source="trending", status="live")
        assert (again["version"], again["liveVersion"]) == (version, version)
        assert [each["version"] for each in desk.call("GET", "/front/versions")["data"]] == [version]
    assert desk.made(id="second")["version"] == 1


def test_scenarios_and_versions_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_SCENARIOS", 2)
    monkeypatch.setattr(service, "MAX_VERSIONS", 3)
    desk.made(status="live")
    desk.made(id="second", status="archived")
    desk.call("POST", status=409, body={"name": "Third"})
    for factor in (1.0, 2.0, 3.0, 4.0):
        body = {"boosts": [{"filter": {"brand": "A"}, "factor": factor}]}
        newest = desk.call("PATCH", "/front", body=body, publish=False)
    assert (newest["version"], newest["liveVersion"]) == (5, 1)
    kept = desk.call("GET", "/front/versions", pageSize=2, page=2)
    assert (kept["total"], [each["version"] for each in kept["data"]]) == (4, [3, 1])  # the live one stays


def test_the_largest_recipe_is_shown_again_and_a_larger_one_is_refused(desk: Desk) -> None:
    """What a scenario has beside its recipe does not count, or the largest could be saved and not be read."""
    items = [*(f"{number:0>256}" for number in range(252)), "x" * 239]
    recipe = Recipe.model_validate({"exclusions": {"items": items}})
    assert len(recipe.model_dump_json(by_alias=True, exclude_defaults=True)) == MAX_RECIPE_BYTES
    desk.made(exclusions={"items": items})
    assert desk.call("GET", "/front")["exclusions"]["items"] == items
    problem = desk.call("PATCH", "/front", 400, {"exclusions": {"items": [*items, "y"]}})
    assert "65540 characters" in problem["detail"]
