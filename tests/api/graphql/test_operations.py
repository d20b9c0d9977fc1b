"""The operations of the reference over HTTP give the results of REST."""

import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import pytest
from graphql import build_client_schema, get_introspection_query, print_type
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from tests.api.graphql.calls import HEALTH, RECOMMENDATIONS, RECORD, SIMILAR, VERSION, data, failure, run
from tests.fixtures.backend import Backend, running_backend
from tests.fixtures.people import person
from tests.fixtures.postgres import gone_away
from tests.fixtures.releases import item_id

COMEDIES = [item_id("comedy", number) for number in range(1, 5)]
HORRORS = [item_id("horror", number) for number in range(1, 5)]

QUERY_TYPE = '''type Query {
  """Personal recommendations, best first"""
  getRecommendations(userId: String!, count: Int!, algorithm: String = null): [Recommendation!]

  """Items most like an item, without it"""
  getSimilarItems(itemId: String!, count: Int!): [SimilarItem!]

  """The version of this API"""
  getApiVersion: String!

  """Whether the process is running"""
  getHealth: Health!
}'''
MUTATION_TYPE = '''type Mutation {
  """Record what a user did with an item: view, click, like or purchase"""
  recordInteraction(ARGUMENTS): RecordedInteraction
}'''

MUTATION_ARGUMENTS = "userId: String!, itemId: String!, interactionType: String!, value: Float = null"
TYPES = {
    "Recommendation": {"itemId", "score", "algorithm", "explanation"},
    "SimilarItem": {"itemId", "score"},
    "Health": {"status", "timestamp"},
    "RecordedInteraction": {"success", "message", "timestamp"},
}


def test_the_schema_has_the_operations_of_the_reference_and_no_other(backend: Backend) -> None:
    schema = build_client_schema(data(backend.client, get_introspection_query()))  # type: ignore[arg-type]
    assert print_type(schema.type_map["Query"]) == QUERY_TYPE
    assert print_type(schema.type_map["Mutation"]) == MUTATION_TYPE.replace("ARGUMENTS", MUTATION_ARGUMENTS)
    assert schema.subscription_type is None
    fields = {name: set(schema.type_map[name].fields) for name in TYPES}  # type: ignore[attr-defined]
    assert fields == TYPES


def test_version_and_health_are_public(client: TestClient) -> None:
    assert data(client, VERSION) == {"getApiVersion": client.get("/openapi.json").json()["info"]["version"]}
    health = data(client, HEALTH)["getHealth"]
    assert health["status"] == client.get("/health").text == "Healthy"
    assert health["timestamp"].endswith("Z")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(health["timestamp"])).total_seconds()) < 5


def test_recommendations_are_those_of_rest(films: Backend) -> None:
    films.interact("ann", *COMEDIES)
    request = {"userId": "ann", "count": 7, "algorithm": "collaborative"}
    expected = films.post("/api/v1/recommend", request)
    for element in expected:
        del element["evidence"]  # not in the reference's type
    assert data(films.client, RECOMMENDATIONS, **request) == {"getRecommendations": expected}


def test_the_algorithm_is_hybrid_where_none_is_named(films: Backend) -> None:
    films.interact("ann", *COMEDIES)
    hybrid = data(films.client, RECOMMENDATIONS, userId="ann", count=7, algorithm="hybrid")
    assert data(films.client, RECOMMENDATIONS, userId="ann", count=7) == hybrid
    assert data(films.client, RECOMMENDATIONS, userId="ann", count=7, algorithm=None) == hybrid
    assert hybrid != data(films.client, RECOMMENDATIONS, userId="ann", count=7, algorithm="content-based")


def test_similar_items_are_those_of_rest(films: Backend) -> None:
    request = {"itemId": "western-3", "count": 8}
    assert data(films.client, SIMILAR, **request) == {"getSimilarItems": films.post("/api/v1/similar", request)}


def test_a_recorded_interaction_is_stored_and_changes_the_next_answer(films: Backend) -> None:
    request = {"userId": "new", "count": 10, "algorithm": "collaborative"}
    before = data(films.client, RECOMMENDATIONS, **request)["getRecommendations"]
    for item in HORRORS:
        recorded = data(films.client, RECORD, userId="new", itemId=item, interactionType="like", value=0.9)
        assert recorded["recordInteraction"]["success"] is True
        assert recorded["recordInteraction"]["timestamp"].endswith("Z")
    stored = films.sql("SELECT item_id, interaction_type, value, id::text, occurred_at FROM interactions ORDER BY 5")
    assert [row[:3] for row in stored] == [(item, "like", pytest.approx(0.9)) for item in HORRORS]
    assert stored[-1][3] in recorded["recordInteraction"]["message"]
    assert datetime.fromisoformat(recorded["recordInteraction"]["timestamp"]) == stored[-1][4]
    after = data(films.client, RECOMMENDATIONS, **request)["getRecommendations"]
    assert after != before
    assert sum(element["itemId"].startswith("horror") for element in after) > 5


def test_the_weight_of_a_recorded_interaction_may_be_left_out(backend: Backend) -> None:
    backend.add_items({"tea": {}})
    data(backend.client, RECORD, userId="ann", itemId="tea", interactionType="purchase")
    assert backend.sql("SELECT user_id, value FROM interactions") == [("ann", None)]


def test_what_rest_says_in_headers_is_in_the_answers_extensions(films: Backend) -> None:
    films.interact("ann", *COMEDIES)
    query = """{
        mine: getRecommendations(userId: "ann", count: 3, algorithm: "collaborative") { itemId }
        getSimilarItems(itemId: "western-3", count: 3) { itemId }
    }"""
    body = run(films.client, query)
    notes = body["extensions"]["recommendations"]
    release = films.client.post("/api/v1/recommend", json={"userId": "x", "count": 1}).headers["X-Model-Release"]
    assert notes.keys() == {"mine", "getSimilarItems"}
    assert {(note["release"], note["degraded"]) for note in notes.values()} == {(release, None)}
    films.client.portal.call(films.client.app.state.recommendations.impressions.flush)
    shown = films.sql(
        "SELECT user_id, item_ids FROM impressions WHERE recommendation_id = %s", [notes["mine"]["recommendationId"]]
    )
    assert shown == [("ann", [element["itemId"] for element in body["data"]["mine"]])]


def test_a_fallback_is_labelled(backend: Backend) -> None:
    backend.add_items({"tea": {}, "salt": {}})
    body = run(backend.client, RECOMMENDATIONS, userId="ann", count=5)
    assert [element["algorithm"] for element in body["data"]["getRecommendations"]] == ["popularity"] * 2
    note = body["extensions"]["recommendations"]["getRecommendations"]
    assert (note["release"], note["degraded"]) == (None, "serving-unavailable")
    similar = run(backend.client, SIMILAR, itemId="tea", count=5)
    note = similar["extensions"]["recommendations"]["getSimilarItems"]
    assert note["degraded"] == "serving-unavailable; ignored=itemId"


def test_a_field_that_fails_leaves_the_others_their_answers(backend: Backend) -> None:
    backend.add_items({"tea": {}, "salt": {}})
    query = """{
        a: getSimilarItems(itemId: "tea", count: 1) { itemId }
        b: getSimilarItems(itemId: "no", count: 1) { itemId }
    }"""
    body = run(backend.client, query)
    assert body["data"] == {"a": [{"itemId": "salt"}], "b": None}
    assert [error["path"] for error in body["errors"]] == [["b"]]
    assert body["extensions"]["recommendations"].keys() == {"a"}


def test_mutations_of_one_document_run_in_order_and_each_counts(backend: Backend) -> None:
    backend.add_items({"tea": {}})
    fields = [
        f'm{n}: recordInteraction(userId: "u", itemId: "{item}", interactionType: "view") {{ success }}'
        for n, item in enumerate(["tea", "no", "tea"])
    ]
    body = run(backend.client, f"mutation {{ {' '.join(fields)} }}")
    assert body["data"] == {"m0": {"success": True}, "m1": None, "m2": {"success": True}}
    assert [error["extensions"]["code"] for error in body["errors"]] == ["NOT_FOUND"]
    assert backend.sql("SELECT count(*) FROM interactions") == [(2,)]


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        (RECOMMENDATIONS, {"userId": "ann", "count": 1}),
        (SIMILAR, {"itemId": "tea", "count": 1}),
        (RECORD, {"userId": "ann", "itemId": "tea", "interactionType": "view"}),
    ],
)
def test_whoever_has_no_valid_key_is_unauthorized(
    client: TestClient, tenants: Any, query: str, variables: dict[str, Any]
) -> None:
    tenants.create()
    for headers in ({}, {"X-API-Key": "rk_" + "x" * 43}, {"Authorization": "Bearer x"}):
        client.headers = headers
        assert failure(client, query, **variables) == ("UNAUTHORIZED", 401)


def test_a_key_needs_the_scope_that_rest_asks_for(client: TestClient, tenants: Any) -> None:
    tenants.create()
    client.headers = tenants.key(scopes=["read"])
    assert failure(client, RECORD, userId="a", itemId="b", interactionType="view") == ("FORBIDDEN", 403)
    assert data(client, RECOMMENDATIONS, userId="a", count=1) == {"getRecommendations": []}
    client.headers = tenants.key(scopes=["write"])
    assert failure(client, RECOMMENDATIONS, userId="a", count=1) == ("FORBIDDEN", 403)
    assert failure(client, SIMILAR, itemId="a", count=1) == ("FORBIDDEN", 403)


def test_another_tenants_items_and_users_are_not_there(open_client: Any, tenants: Any) -> None:
    with running_backend(open_client, tenants, "one") as one, running_backend(open_client, tenants, "two") as two:
        one.add_items({"tea": {}, "same": {}})
        two.add_items({"same": {}})
        data(one.client, RECORD, userId="ann", itemId="same", interactionType="view")
        assert failure(two.client, SIMILAR, itemId="tea", count=1) == ("NOT_FOUND", 404)
        assert failure(two.client, RECORD, userId="ann", itemId="tea", interactionType="view") == ("NOT_FOUND", 404)
        found = data(two.client, RECOMMENDATIONS, userId="ann", count=5)["getRecommendations"]
        assert [element["itemId"] for element in found] == ["same"]
        assert one.sql("SELECT tenant_id FROM interactions") == [("one",)]


@pytest.mark.parametrize(
    ("query", "variables", "field"),
    [
        (RECOMMENDATIONS, {"userId": "", "count": 1}, "userId"),
        (RECOMMENDATIONS, {"userId": "x" * 257, "count": 1}, "userId"),
        (RECOMMENDATIONS, {"userId": "a\nb", "count": 1}, "userId"),
        (RECOMMENDATIONS, {"userId": "a", "count": 0}, "count"),
        (RECOMMENDATIONS, {"userId": "a", "count": 101}, "count"),
        (RECOMMENDATIONS, {"userId": "a", "count": 1, "algorithm": "magic"}, "algorithm"),
        (SIMILAR, {"itemId": "", "count": 1}, "itemId"),
        (SIMILAR, {"itemId": "a", "count": -1}, "count"),
        (RECORD, {"userId": "a", "itemId": "b", "interactionType": "stare"}, "interactionType"),
        (RECORD, {"userId": "a", "itemId": "b", "interactionType": "view", "value": 1.5}, "value"),
        (RECORD, {"userId": "a", "itemId": "b", "interactionType": "view", "value": -0.1}, "value"),
    ],
)
def test_an_argument_that_rest_refuses_is_refused_and_named(
    backend: Backend, query: str, variables: dict[str, Any], field: str
) -> None:
    body = run(backend.client, query, **variables)
    (error,) = body["errors"]
    assert (error["extensions"]["code"], error["extensions"]["status"]) == ("BAD_REQUEST", 400)
    assert [found["field"] for found in error["extensions"]["errors"]] == [field]
    assert error["message"].startswith(f"{field}: ")


def test_an_error_mirrors_the_problem_of_rest(backend: Backend) -> None:
    trace = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    problem = backend.client.post("/api/v1/similar", json={"itemId": "no", "count": 1}, headers=trace).json()
    body = {"query": SIMILAR, "variables": {"itemId": "no", "count": 1}}
    (error,) = backend.client.post("/graphql", json=body, headers=trace).json()["errors"]
    assert error["message"] == problem["detail"]
    extensions = error["extensions"]
    assert extensions.keys() == {"code", "type", "title", "status", "traceId"}
    assert extensions["code"] == "NOT_FOUND"
    assert [extensions[name] for name in ("type", "title", "status")] == [
        problem[name] for name in ("type", "title", "status")
    ]
    assert extensions["traceId"].startswith("00-" + "a" * 32)


def test_a_failure_that_nobody_foresaw_is_a_500_that_tells_nothing_and_is_logged(backend: Backend) -> None:
    backend.sql("ALTER TABLE interactions RENAME TO gone")
    with capture_logs() as entries:
        body = run(backend.client, RECOMMENDATIONS, userId="a", count=1)
    (error,) = body["errors"]
    assert (error["extensions"]["code"], error["extensions"]["status"]) == ("INTERNAL_SERVER_ERROR", 500)
    assert "interactions" not in error["message"]
    assert [entry["field"] for entry in entries if entry["event"] == "unhandled"] == ["getRecommendations"]


def test_a_database_that_is_away_is_a_503(backend: Backend, postgres_url: str) -> None:
    name = backend.url.rsplit("/", 1)[1]
    assert data(backend.client, RECOMMENDATIONS, userId="a", count=1)
    with gone_away(postgres_url, name):
        assert failure(backend.client, RECOMMENDATIONS, userId="a", count=1) == ("SERVICE_UNAVAILABLE", 503)
        assert data(backend.client, HEALTH)["getHealth"]["status"] == "Healthy"


def test_a_token_is_no_api_key_here_either(backend: Backend) -> None:
    admin = person(backend, "boss", role="admin")
    assert admin.post("/api/v1/recommend", json={"userId": "a", "count": 1}).status_code == 401
    assert failure(admin, RECOMMENDATIONS, userId="a", count=1) == ("UNAUTHORIZED", 401)
    assert data(admin, HEALTH)["getHealth"]["status"] == "Healthy"


def test_no_log_line_holds_what_was_sent(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    secret = "nobodys-business"
    with capture_logs() as entries, caplog.at_level(logging.DEBUG):
        run(backend.client, RECOMMENDATIONS, userId=secret, count=1)
        run(backend.client, RECOMMENDATIONS, userId=secret, count=0)
        run(backend.client, RECORD, userId=secret, itemId=secret, interactionType=secret)
        run(backend.client, RECOMMENDATIONS, status=400, userId=secret, count=secret)
        run(backend.client, RECOMMENDATIONS, status=400, userId=[secret], count=1)
        run(backend.client, "{ nobodys }", status=400)
        run(backend.client, f'{{ getSimilarItems(itemId: "{secret}", count: "{secret}") {{ itemId }} }}', status=400)
        backend.sql("ALTER TABLE interactions RENAME TO gone")
        run(backend.client, RECOMMENDATIONS, userId=secret, count=1)
    unhandled = [entry.pop("exc_info") for entry in entries if entry["event"] == "unhandled"]
    assert len(unhandled) == 1
    assert "nobodys" not in caplog.text + str(entries) + "".join(traceback.format_exception(unhandled[0]))


def test_one_of_several_operations_is_run_by_its_name(client: TestClient) -> None:
    query = "query A { getApiVersion } query B { getHealth { status } }"

    def named(name: str | None) -> tuple[int, Any]:
        answer = client.post("/graphql", json={"query": query, "operationName": name})
        return answer.status_code, answer.json().get("data")

    assert named("B") == (200, {"getHealth": {"status": "Healthy"}})
    assert [named(name)[0] for name in (None, "", "C")] == [400, 400, 400]
    alone = client.post("/graphql", json={"query": "query A { getApiVersion }", "operationName": ""})
    assert alone.status_code == 200
