"""No tenant reaches another's data, on any route.

Two tenants hold the same names with different data. Every route that the application has is called with the
credentials of one of them, with ids that both have and with ids that only the other has. Whoever adds a route says in
`tests.fixtures.valid_bodies` what it takes; nothing else is asked of them, and a route that is not scoped fails here.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from api.database.session import Session
from api.http.principal import ReadKey
from api.http.schemas import PathId
from configs.api import LimitSettings
from tests.api.conftest import Tenants, configuration_of, running
from tests.fixtures.people import PASSWORD
from tests.fixtures.postgres import copy_of
from tests.fixtures.routes import Route, all_routes, routes_of
from tests.fixtures.standin import StandIn
from tests.fixtures.twins import Twin, keep_exported_files, make_twin, rows_of
from tests.fixtures.valid_bodies import bodies_of, operations

UNLIMITED = LimitSettings(per_key=100_000, per_jwt=100_000, per_ip=100_000, redis_url=None)
PUBLIC = (
    *("/health", "/api/auth/", "/auth/v1/token", "/auth/v1/signup"),
    *("/api/billing/plans", "/api/billing/webhook"),
)
"""Routes without a credential. Logging in names no tenant; that the right one is found is asked below."""
GRAPHIQL = "GET /graphql"
"""A page without data, there only in development."""
ROUTES = [route for route in all_routes() if not route.path.startswith(PUBLIC) and str(route) != GRAPHIQL]
VOLATILE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+Z|rk_[\w-]+")


# Routes whose path names nothing, but whose body does: what they say of what only another tenant has.
REFUSES = {
    # A user who is unknown is a new one.
    "POST /api/v1/recommend": lambda answer: (
        answer.status_code == (404 if b'"scenario"' in answer.request.content else 200)
    ),
    "POST /api/v1/interactions": lambda answer: answer.status_code == 404,
    "POST /api/v1/interactions/batch": lambda answer: answer.json()["results"][0]["status"] == 404,
    "POST /api/v1/similar": lambda answer: answer.status_code == 404,
    "POST /api/v1/recommend/next": lambda answer: answer.status_code == 404,
    "POST /api/v1/impressions": lambda answer: answer.status_code == 404,
}
# Routes with a body, whose bodies name nothing that another tenant could have, or make it anew for our own.
NAMES_ONLY_OURS = {
    *("POST /api/items", "POST /api/items/batch", "POST /api/users", "POST /api/keys", "POST /api/segments"),
    *("POST /api/scenarios", "POST /api/exports", "POST /api/recommendations/generate", "PUT /auth/v1/user"),
    *("POST /api/billing/checkout", "PUT /api/billing/overage-cap"),
    *("PUT /api/settings/pipeline", "PUT /api/settings/recommendations"),
    "POST /graphql",  # asked below
}
# Query parameters that name what only another tenant has, which is a 404: by route, and by which of the twins' ids.
NAMED_BY_QUERY = {
    ("GET /api/analytics/recommendations", "scenario"): "scenario_id",
    ("GET /api/analytics/recommendations", "segment"): "segment_id",
    ("GET /api/v1/lists/{source}", "itemId"): "item_id",
}
OTHER_QUERIES = {
    *("page", "pageSize", "count", "from", "to", "period", "windowHours", "status", "publish", "scope"),
    *("filter", "action", "actor", "algorithm", "family", "release"),  # conditions on our own rows
    *("search", "userId"),  # find nothing, as is asked below
}
# Routes that change none of their tenant's rows, though they are no GET; impressions are written behind the request.
CHANGES_NOTHING = {
    "POST /api/scenarios/{scenario_id}/preview",
    *("POST /api/v1/similar", "POST /api/v1/recommend"),
    *("POST /api/billing/checkout", "POST /api/billing/portal"),  # what they make is at Stripe
}


@dataclass(frozen=True)
class Templates:
    """Databases to copy: `ours` alone, and both."""

    alone: str
    both: str
    ours: Twin
    theirs: Twin


@pytest.fixture(scope="module")
def templates(
    postgres_url: str, migrated_template: str, tmp_path_factory: Any, stripe_account: StandIn
) -> Iterator[Templates]:
    def fill(url: str, tenant_id: str, word: str) -> Twin:
        configuration = configuration_of(url, tmp_path_factory.mktemp("twins"))
        with running(configuration, limits=UNLIMITED, billing=stripe_account.settings()) as client:
            return make_twin(client, url, Tenants(url), tenant_id, word)

    with copy_of(postgres_url, migrated_template) as alone:
        ours = fill(alone, "ours", "beta")
        with copy_of(postgres_url, _name(alone)) as both:
            theirs = fill(both, "theirs", "alpha")
            yield Templates(_name(alone), _name(both), ours, theirs)


@pytest.fixture
def open_copy(postgres_url: str, tmp_path: Path, stripe_account: StandIn, templates: Templates) -> Any:
    """`with open_copy(template) as (client, url)`: the application over a copy of a database, with both tenants' files
    of exports."""
    configuration = configuration_of("", tmp_path)
    for twin in (templates.ours, templates.theirs):
        keep_exported_files(configuration.paths.exports, twin)

    @contextmanager
    def open_copy(template: str, **changes: Any) -> Iterator[tuple[TestClient, str]]:
        with (
            copy_of(postgres_url, template) as url,
            running(
                configuration_of(url, tmp_path), limits=UNLIMITED, billing=stripe_account.settings(), **changes
            ) as client,
        ):
            yield client, url

    return open_copy


def _name(url: str) -> str:
    return url.rsplit("/", 1)[1]


def _call(
    client: httpx.Client, route: Route, headers: dict[str, str], ids: dict[str, str], body: Any, **query: str
) -> httpx.Response:
    unknown = set(route.parameters) - set(ids)
    assert not unknown, f"{route}: tests.fixtures.twins has no id for {unknown}"
    path = route.path.format(**{name: quote(value, safe="") for name, value in ids.items()})
    json_body = {} if body is None else {"json": body}
    return client.request(route.method, path, headers=headers, params=query, **json_body)


def assert_closed(client: httpx.Client, url: str, route: Route, ours: Twin, theirs: Twin) -> None:
    """With our credentials, ids that only they have are 404 and nothing of theirs is shown or changes."""
    before = rows_of(url, theirs.tenant_id)
    reached = False
    for headers in ours.credentials.values():
        for body in bodies_of(route, theirs.own_ids):
            answer = _call(client, route, headers, theirs.own_ids, body)
            if answer.status_code in (401, 403):
                continue  # a credential of the wrong kind, or a person who may see only itself
            reached = True
            if route.parameters:
                assert answer.status_code == 404, (route, answer.text)
            elif (refuses := REFUSES.get(str(route))) is not None:
                assert refuses(answer), (route, answer.text)
            _assert_nothing_of(theirs, answer)
        for body in bodies_of(route, ours.ids):
            _assert_nothing_of(theirs, _call(client, route, headers, ours.ids, body))
    assert reached, f"none of our credentials opens {route}"
    assert rows_of(url, theirs.tenant_id) == before, f"{route} changed rows of another tenant"


def _assert_nothing_of(theirs: Twin, answer: httpx.Response) -> None:
    shown = answer.text + str(dict(answer.headers))
    for id_ in theirs.own_ids.values():
        shown = shown.replace(id_, "")  # what we sent may come back; it holds the word
    assert theirs.word not in shown, (str(answer.request.url), answer.text)
    assert theirs.tenant_id not in shown


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_nothing_of_another_tenant_is_shown_or_changed(route: Route, open_copy: Any, templates: Templates) -> None:
    with open_copy(templates.both) as (client, url):
        assert_closed(client, url, route, templates.ours, templates.theirs)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_our_own_rows_are_shown_and_changed(route: Route, open_copy: Any, templates: Templates) -> None:
    ours = templates.ours
    with open_copy(templates.both) as (client, url):
        before = rows_of(url, ours.tenant_id)
        codes = {
            _call(client, route, headers, ours.ids, body).status_code
            for headers in ours.credentials.values()
            for body in bodies_of(route, ours.ids)
        }
        assert route.status in codes
        if route.method != "GET" and str(route) not in CHANGES_NOTHING:
            assert rows_of(url, ours.tenant_id) != before


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "GET"], ids=str)
def test_what_is_read_does_not_depend_on_another_tenants_rows(
    route: Route, open_copy: Any, templates: Templates
) -> None:
    """Counts and figures too: what we read is the same with and without the others."""
    seen = []
    for template in (templates.alone, templates.both):
        with open_copy(template) as (client, _):
            answers = [
                _call(client, route, headers, templates.ours.ids, None)
                for headers in templates.ours.credentials.values()
            ]
            assert 200 in {answer.status_code for answer in answers}
            seen.append([VOLATILE.sub("-", answer.text) for answer in answers if answer.status_code == 200])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("route", [route for route in ROUTES if {"search", "userId"} & set(route.queries)], ids=str)
def test_another_tenants_words_and_ids_find_nothing(route: Route, open_copy: Any, templates: Templates) -> None:
    theirs = templates.theirs
    with open_copy(templates.both) as (client, _):
        for name, value in (("search", theirs.word), ("userId", theirs.own_ids["user_id"])):
            if name not in route.queries:
                continue
            ids = templates.ours.ids | {"source": "recently-viewed"}  # the list that is of a user
            answers = [
                _call(client, route, headers, ids, None, **{name: value})
                for headers in templates.ours.credentials.values()
            ]
            found = [answer.json() for answer in answers if answer.status_code == 200]
            assert [len(each) if isinstance(each, list) else each["total"] for each in found] == [0]


@pytest.mark.parametrize(("name", "query"), NAMED_BY_QUERY)
def test_a_query_that_names_something_of_another_tenant_is_a_404(
    name: str, query: str, open_copy: Any, templates: Templates
) -> None:
    (route,) = (route for route in ROUTES if str(route) == name)
    ours, value = templates.ours, templates.theirs.own_ids[NAMED_BY_QUERY[name, query]]
    ids = ours.ids | {"source": "bought-together"}  # the list that is of an item
    with open_copy(templates.both) as (client, _):
        answers = [_call(client, route, headers, ids, None, **{query: value}) for headers in ours.credentials.values()]
        assert {answer.status_code for answer in answers} - {401, 403} == {404}


def test_every_route_is_classified_by_what_its_body_and_queries_name() -> None:
    named = {str(route) for route in ROUTES if route.has_body and not route.parameters}
    assert named == REFUSES.keys() | NAMES_ONLY_OURS
    queries = {(str(route), name) for route in ROUTES for name in route.queries if name not in OTHER_QUERIES}
    assert queries == NAMED_BY_QUERY.keys()


def test_graphql_says_not_found_of_another_tenants_item(open_copy: Any, templates: Templates) -> None:
    with open_copy(templates.both) as (client, _):
        for body in operations(templates.theirs.own_ids)[:2]:
            answer = client.post("/graphql", json=body, headers=templates.ours.credentials["key"])
            assert answer.json()["errors"][0]["extensions"]["status"] == 404


def test_recommendations_are_of_our_items_whoever_the_user_is(open_copy: Any, templates: Templates) -> None:
    with open_copy(templates.both) as (client, _):
        for user in ("same-user", templates.theirs.own_ids["user_id"]):
            body = {"userId": user, "count": 10, "excludeSeen": "none"}
            answer = client.post("/api/v1/recommend", json=body, headers=templates.ours.credentials["key"])
            assert {item["itemId"] for item in answer.json()} == {"same-item", "second-item", "beta-item"}


def test_a_login_finds_the_tenant_of_its_address(open_copy: Any, templates: Templates) -> None:
    with open_copy(templates.both) as (client, _):
        for twin in (templates.ours, templates.theirs):
            body = {"email": f"boss@{twin.word}.example", "password": PASSWORD}
            token = client.post("/api/auth/login", json=body).json()["token"]
            users = client.get("/api/users", headers={"Authorization": f"Bearer {token}"}).json()["data"]
            assert {user["name"] for user in users if user["email"]} == {f"{twin.word} person"}


def test_a_route_that_is_not_scoped_fails_here(open_copy: Any, templates: Templates) -> None:
    async def run(session: Session, statement: str, **values: str) -> Any:
        return await (await session.connection()).execute(text(statement), values)

    def leaky(app: FastAPI) -> None:
        @app.get("/leaky/items/{item_id}")
        async def read(item_id: PathId, key: ReadKey, session: Session) -> Any:
            return {"found": (await run(session, "SELECT id FROM items WHERE id = :id", id=item_id)).scalar()}

        @app.get("/leaky/count")
        async def count(key: ReadKey, session: Session) -> int:
            return (await run(session, "SELECT count(*) FROM items")).scalar_one()

        @app.delete("/leaky/items/{item_id}", status_code=204)
        async def delete(item_id: PathId, key: ReadKey, session: Session) -> None:
            await run(session, "UPDATE items SET is_active = false WHERE id = :id", id=item_id)

    with open_copy(templates.both, adapt=leaky) as (client, url):
        found = {str(route): route for route in routes_of(client.app) if route.path.startswith("/leaky")}
        assert len(found) == 3
        for name in ("GET /leaky/items/{item_id}", "DELETE /leaky/items/{item_id}"):
            with pytest.raises(AssertionError):
                assert_closed(client, url, found[name], templates.ours, templates.theirs)
        both = client.get("/leaky/count", headers=templates.ours.credentials["key"]).json()
    with open_copy(templates.alone, adapt=leaky) as (client, _):
        assert client.get("/leaky/count", headers=templates.ours.credentials["key"]).json() != both
    assert json.dumps(both) == "6"
