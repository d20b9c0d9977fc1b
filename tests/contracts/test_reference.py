"""The API against its reference, over HTTP: every route's method, path, status codes and JSON shape.

Run with `-s` to see the table: route, example in the reference, what was answered.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from api.app import create_app
from api.database.scope import TenantScope
from api.http.openapi import PROBLEM as PROBLEM_SCHEMA
from api.users.passwords import Passwords
from api.users.service import create_admin
from configs.api import LimitSettings
from tests.api.conftest import Tenants, configuration_of
from tests.contracts.reference import ADDED, GOTRUE, GRAPHQL, ITEM, LIMITS, METADATA, PROBLEM, ROWS, Row
from tests.contracts.shapes import MOMENT, differences
from tests.fixtures.live import served
from tests.fixtures.passwords import hash_password
from tests.fixtures.routes import all_routes
from tests.fixtures.standin import StandIn

TENANT = "acme"
IDS = {
    "item-uuid": "item-uuid",
    "user-uuid": "user-uuid",
    "user-uuid-2": "user-uuid-2",
    "user-uuid-3": "user-uuid-3",
    "rec-uuid": str(UUID(int=1)),
    "rec-uuid-2": str(UUID(int=2)),
}
TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Api:
    """The API of a tenant with what the reference's examples speak of."""

    def __init__(self, client: httpx.Client, database_url: str, account: StandIn) -> None:
        self.client = client
        self.account = account
        tenants = Tenants(database_url)
        tenants.create(TENANT, "plan-growth")  # as the example of its usage has it
        tenants.create("strangers")
        self.credentials: dict[str, dict[str, str]] = {"public": {}, "key": tenants.key(TENANT, rate_limit=0)}
        self.answers: list[tuple[str, str, str]] = []
        with psycopg.connect(database_url, autocommit=True) as self.connection:
            tenants.run(_make_admin)
            self.credentials["admin"] = self._log_in(GOTRUE["body"]["email"], GOTRUE["body"]["password"])
            self._fill()
            self.credentials["user"] = self._log_in("user@example.com", "secure_password")

    def _log_in(self, email: str, password: str) -> dict[str, str]:
        answer = self.client.post(GOTRUE["path"], params=GOTRUE["query"], json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def _fill(self) -> None:
        items = [{"id": id_, "metadata": ITEM["metadata"]} for id_ in ("item-uuid", "item-uuid-2", "item-uuid-3")]
        self._made("/api/items/batch", "key", {"items": items}, 200)
        person = {"id": "user-uuid", "email": "user@example.com", "name": "John Doe", "password": "secure_password"}
        self._made("/api/users", "admin", person)
        self._made("/api/users", "admin", {"id": "user-uuid-2"})
        self._made("/api/users", "admin", {"id": "user-uuid-3", "email": "third@example.com", "name": "Third"})
        seen = {"userId": "user-uuid-2", "itemId": "item-uuid", "interactionType": "view"}
        self._made("/api/v1/interactions", "key", seen)  # the last request of the usage
        self._made("/api/billing/checkout", "admin", {"planId": "plan-growth", "interval": "monthly"}, 200)
        (customer,) = self.connection.execute("SELECT customer_id FROM subscriptions").fetchone() or ()
        charged_once(self.account, customer)
        for number in (1, 2):
            self.connection.execute(
                "INSERT INTO recommendations (tenant_id, id, user_id, item_id, rank, score, algorithm, reason) "
                "VALUES (%s, %s, 'user-uuid', 'item-uuid', 1, 0.92, 'hybrid', 'Based on your interaction history')",
                [TENANT, UUID(int=number)],
            )

    def _made(self, path: str, credential: str, body: Any, status: int = 201) -> None:
        answer = self.client.post(path, json=body, headers=self.credentials[credential])
        assert answer.status_code == status, answer.text

    def call(self, row: Row, credential: str | None = None, **changes: Any) -> httpx.Response:
        """The answer to the row's example request, with its parts changed: path, body, query."""
        path = changes.get("path") or re.sub(r"\{([\w-]+)\}", lambda match: IDS[match[1]], row.path)
        body = changes.get("body", row.body)
        return self.client.request(
            row.method,
            path,
            headers=self.credentials[credential or row.credential],
            params=changes.get("query", row.query),
            **({} if body is None else {"json": body}),
        )


def charged_once(account: StandIn, customer: str) -> None:
    """Have the customer get an invoice."""
    account.library.invoice_items.create({"customer": customer, "amount": 14_900, "currency": "usd"})
    invoice = account.library.invoices.create({"customer": customer, "pending_invoice_items_behavior": "include"})
    account.library.invoices.finalize_invoice(invoice.id, {"auto_advance": False})


async def _make_admin(session: Any) -> None:
    body = GOTRUE["body"]
    admin = await create_admin(session, Passwords(), TenantScope(TENANT), body["email"], "another password")
    # The reference's example logs in with a password that could not be chosen now.
    admin.password_hash = hash_password(body["password"])


@pytest.fixture(scope="module")
def api(module_database_url: str, tmp_path_factory: Any, stripe_account: StandIn) -> Iterator[Api]:
    configuration = configuration_of(module_database_url, tmp_path_factory.mktemp("api"))
    auth = configuration.auth.model_copy(update={"registration_tenant": "strangers"})
    unlimited = LimitSettings(per_jwt=10**6, per_ip=10**6, redis_url=None)
    with (
        served(
            create_app(replace(configuration, auth=auth, limits=unlimited, billing=stripe_account.settings()))
        ) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        api = Api(client, module_database_url, stripe_account)
        yield api
        for route, example, answered in api.answers:
            print(f"\n{route}\n  reference: {example}\n  answered:  {answered}", end="")


def _note(api: Api, name: str, example: Any, answer: httpx.Response, status: int) -> None:
    expected = "" if example is None else json.dumps(example)
    api.answers.append((name, f"{status} {expected}", f"{answer.status_code} {answer.text[:300]}"))


def _assert_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    adds = frozenset({"errors", "code", "error_code", "msg"})
    assert list(differences(PROBLEM, body, adds)) == []
    assert body["status"] == status
    assert TRACE.fullmatch(body["traceId"])
    if status == 400:
        assert all(error.keys() == {"field", "message"} for error in body["errors"])


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_answer_has_the_status_and_the_shape_of_the_reference(row: Row, api: Api) -> None:
    answer = api.call(row)
    _note(api, str(row), row.text or row.answer, answer, row.status)
    assert answer.status_code == row.status, answer.text
    if row.answer is not None:
        assert answer.headers["content-type"] == "application/json"
        assert list(differences(row.answer, answer.json(), row.adds)) == []
    else:
        assert answer.text == (row.text or "")


@pytest.mark.parametrize("row", [row for row in ROWS if row.credential != "public"], ids=str)
def test_a_missing_or_wrong_credential_is_401(row: Row, api: Api) -> None:
    _assert_problem(api.call(row, "public"), 401)
    wrong = {"X-API-Key": "rk_" + "x" * 43} if row.credential == "key" else {"Authorization": "Bearer x.y.z"}
    api.credentials["wrong"] = wrong
    _assert_problem(api.call(row, "wrong"), 401)
    other = "admin" if row.credential == "key" else "key"
    assert api.call(row, other).status_code in (401, 403)


def test_a_401_is_the_references(api: Api) -> None:
    body = api.call(next(row for row in ROWS if row.credential == "key"), "public").json()
    assert {name: body[name] for name in ("title", "status", "detail")} == {
        name: PROBLEM[name] for name in ("title", "status", "detail")
    }


@pytest.mark.parametrize("row", [row for row in ROWS if row.credential == "admin"], ids=str)
def test_who_is_no_admin_is_403(row: Row, api: Api) -> None:
    _assert_problem(api.call(row, "user"), 403)


@pytest.mark.parametrize("row", [row for row in ROWS if "{" in row.path], ids=str)
def test_an_id_that_names_nothing_is_404(row: Row, api: Api) -> None:
    credential = "key" if row.credential == "key" else "admin"
    for id_ in (str(UUID(int=99)), "nothing"):
        _assert_problem(api.call(row, credential, path=re.sub(r"\{[\w-]+\}", id_, row.path)), 404)


@pytest.mark.parametrize("row", [row for row in ROWS if row.missing], ids=str)
def test_a_body_that_names_nothing_is_404(row: Row, api: Api) -> None:
    _assert_problem(api.call(row, body={**row.body, **(row.missing or {})}), 404)


@pytest.mark.parametrize("row", [row for row in ROWS if row.invalid], ids=str)
def test_what_is_not_valid_is_400(row: Row, api: Api) -> None:
    for invalid in row.invalid:
        changed = {"query": invalid} if row.body is None else {"body": invalid}
        _assert_problem(api.call(row, **changed), 400)


@pytest.mark.parametrize("row", [row for row in ROWS if row.body is not None], ids=str)
def test_a_body_is_needed(row: Row, api: Api) -> None:
    _assert_problem(api.call(row, body=None), 400)


@pytest.mark.parametrize("path", sorted({row.path for row in ROWS}))
def test_other_methods_are_405(path: str, api: Api) -> None:
    known = {route.split()[0] for route in _implemented() if route.split()[1] == _generic(path)}
    other = next(method for method in ("PATCH", "PUT", "POST") if method not in known)
    answer = api.client.request(other, path.format(**IDS))
    _assert_problem(answer, 405)
    assert known <= {*answer.headers["allow"].split(", ")}


@pytest.mark.parametrize(("document", "variables", "data", "credential"), GRAPHQL, ids=lambda value: str(value)[:24])
def test_graphql_answers_like_the_reference(
    document: str, variables: Any, data: Any, credential: str, api: Api
) -> None:
    body = {"query": document, "variables": variables}
    answer = api.client.post("/graphql", json=body, headers=api.credentials[credential])
    _note(api, document.split("(", maxsplit=1)[0].replace("\n", " "), data, answer, 200)
    assert answer.status_code == 200
    assert "errors" not in answer.json()
    assert list(differences(data, answer.json()["data"])) == []


def test_a_jwt_is_obtained_from_gotrue(api: Api) -> None:
    answer = api.client.post(GOTRUE["path"], params=GOTRUE["query"], json=GOTRUE["body"])
    assert answer.status_code == 200
    assert {"access_token", "token_type", "expires_in", "expires_at", "refresh_token", "user"} == answer.json().keys()


@pytest.mark.parametrize("scope", LIMITS)
def test_limits_are_the_references(scope: str, api: Api, module_database_url: str, tmp_path_factory: Any) -> None:
    tenants = Tenants(module_database_url)
    credentials = {**api.credentials, "key": tenants.key(TENANT)}
    configuration = configuration_of(module_database_url, tmp_path_factory.mktemp("limits"))
    limits = LimitSettings(redis_url=None)
    with served(create_app(replace(configuration, limits=limits))) as url, httpx.Client(base_url=url) as client:
        answer = client.get("/api/users/user-uuid", headers=credentials[scope])
        assert int(answer.headers["x-ratelimit-limit"]) == LIMITS[scope]
        assert int(answer.headers["x-ratelimit-remaining"]) == LIMITS[scope] - 1


def test_past_the_limit_is_429(module_database_url: str, tmp_path_factory: Any) -> None:
    configuration = configuration_of(module_database_url, tmp_path_factory.mktemp("limits"))
    limits = LimitSettings(per_ip=1, redis_url=None)
    with served(create_app(replace(configuration, limits=limits))) as url, httpx.Client(base_url=url) as client:
        answers = [client.get("/api/items") for _ in range(3)]
        assert answers[-1].headers["retry-after"]
        _assert_problem(answers[-1], 429)


def _generic(path: str) -> str:
    return re.sub(r"\{[\w-]+\}", "{}", path)


def _implemented() -> set[str]:
    return {_generic(str(route)) for route in all_routes()}


def test_every_route_of_the_reference_is_there_and_no_other_without_a_reason() -> None:
    reference, added = ({_generic(str(row)) for row in rows} for rows in (ROWS, ADDED))
    assert reference - _implemented() == set()
    assert _implemented() - reference - added == set()
    assert added - _implemented() == set()


def test_moments_are_utc_and_metadata_is_what_was_sent(api: Api) -> None:
    item = api.call(next(row for row in ROWS if row.path == "/api/items/{item-uuid}")).json()
    assert MOMENT.fullmatch(item["createdAt"])
    assert item["metadata"] == METADATA | {"rating": 4.8}
    assert item["tenantId"] == TENANT


def test_the_documented_problem_is_the_references() -> None:
    assert PROBLEM.keys() == set(PROBLEM_SCHEMA["required"])
