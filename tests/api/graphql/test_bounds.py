"""What `/graphql` refuses: documents that cost too much, and requests that are not valid."""

import dataclasses
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from typing import Any

import pytest
from graphql import DocumentNode, FieldNode, Lexer, Source, TokenKind, get_introspection_query, parse
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api.graphql.documents import (
    WITH_CREDENTIAL,
    WITHOUT_CREDENTIAL,
    DocumentBounds,
    Extent,
    check,
    check_text,
    comparisons_of,
    extent_of,
    root_fields,
)
from api.http.bodies import MAX_BODY_VALUES
from api.http.problems import Invalid
from configs.api import ApiSettings, LimitSettings
from tests.api.graphql.calls import HEALTH, RECOMMENDATIONS, VERSION, data, run
from tests.api.test_limits import one_minute  # noqa: F401 - a fixture
from tests.fixtures.backend import Backend

QUICK_SECONDS = 60.0  # an attack takes minutes; on an idle machine all of these take milliseconds


def refused(client: TestClient, query: str) -> dict[str, Any]:
    """A problem that is also an answer of GraphQL."""
    response = client.post("/graphql", json={"query": query})
    body: dict[str, Any] = response.json()
    assert response.status_code == body["status"] == 400, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "detail", "traceId", "errors"} <= body.keys()
    assert body["errors"]
    for error in body["errors"]:
        assert error["message"] and error["field"]
        assert (error["extensions"]["code"], error["extensions"]["status"]) == ("BAD_REQUEST", 400)
    return body


def nested_fragments(levels: int) -> str:
    """A document of a few lines that spells 2 ** levels fields."""
    chain = [f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(levels)]
    return " ".join(["{ ...F0 }", *chain, f"fragment F{levels} on Query {{ getApiVersion }}"])


def nested_introspection(levels: int) -> str:
    chain = [f"fragment F{n} on __Type {{ ...F{n + 1} ...F{n + 1} }}" for n in range(levels)]
    return " ".join(["{ __schema { types { ...F0 } } }", *chain, f"fragment F{levels} on __Type {{ name }}"])


@pytest.mark.parametrize(
    "query",
    [
        "{" + " ".join(f"a{n}: getApiVersion" for n in range(10_000)) + "}",
        "{" + " ".join(f"a{n}: getApiVersion" for n in range(WITH_CREDENTIAL.aliases + 1)) + "}",
        "{ ...F } fragment F on Query {"
        + " ".join(f"a{n}: getApiVersion" for n in range(WITH_CREDENTIAL.aliases + 1))
        + "}",
        "{" + "getApiVersion " * 100_000 + "}",
        "{ getHealth " * 50 + "{ status }" + " }" * 50,
        "{ getHealth " * 400 + "{ status }" + " }" * 400,
        "{ getHealth " * 100_000,
        "query($a: " + "[" * 900 + "Int" + "]" * 900 + ") { getApiVersion }",
        "{ getRecommendations(userId: " + "[" * 900 + "]" * 900 + ", count: 1) { itemId } }",
        "{ getApiVersion " + "@skip(if: true) " * 600 + "}",
        nested_fragments(100),
        nested_introspection(100),
        "{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }",
        '{ __type(name: "Query") ' + "{ ofType " * 30 + "{ name }" + " }" * 31,
        "{ ...F } fragment F on Query { ...G } fragment G on Query { ...F }",
        "{ ...Nowhere }",
        '{ getRecommendations(userId: """' + "x\n" * 500_000 + '""", count: 1) { itemId } }',
        '{ getRecommendations(userId: "a", count: ' + "9" * 100_000 + ") { itemId } }",
        "#" * 100_000 + "{ getApiVersion }",
        "#" * 99_000,
        "\ufeff",
        "{",
        "nonsense",
        "{ getUsers { id } }",
        "mutation { getHealth { status } }",
        "subscription { getHealth { status } }",
        "{ getRecommendations(userId: 1, count: 1) { itemId } }",
        '{ getRecommendations(userId: "a", count: "1") { itemId } }',
        '{ getRecommendations(userId: "a", count: 1) }',
        '{ getRecommendations(userId: "a") { itemId } }',
        "query A { getApiVersion } query B { getApiVersion }",
        "fragment F on Query { getApiVersion }",
        "type Query { a: Int }",
    ],
    ids=lambda query: query[:40],
)
def test_a_document_that_is_too_much_or_not_valid_is_a_quick_400(backend: Backend, query: str) -> None:
    started = time.monotonic()
    body = run_bounded(backend.client, query)
    assert time.monotonic() - started < QUICK_SECONDS
    assert body["errors"]


def run_bounded(client: TestClient, query: str) -> dict[str, Any]:
    response = client.post("/graphql", json={"query": query})
    if response.status_code == 200:  # an argument's value is the field's business
        body: dict[str, Any] = response.json()
        assert {error["extensions"]["status"] for error in body["errors"]} == {400}
        return body
    return refused(client, query)


def test_what_tools_and_people_ask_for_is_not_too_much(backend: Backend) -> None:
    client = backend.client
    assert data(client, get_introspection_query(input_value_deprecation=True, directive_is_repeatable=True))
    aliased = "{" + " ".join(f"a{n}: getApiVersion" for n in range(WITH_CREDENTIAL.aliases)) + "}"
    assert len(data(client, aliased)) == WITH_CREDENTIAL.aliases


def test_the_schema_is_shown_to_callers_with_a_credential_only(client: TestClient) -> None:
    for query in (get_introspection_query(), '{ __type(name: "Query") { name } }'):
        refused = client.post("/graphql", json={"query": query})
        assert (refused.status_code, refused.json()["status"]) == (401, 401), refused.text
        assert refused.json()["errors"][0]["extensions"]["code"] == "UNAUTHORIZED"
    assert data(client, "{ __typename getApiVersion }")


@pytest.mark.parametrize("graphiql", [False, True])
def test_no_method_and_no_form_of_a_request_shows_the_schema_without_a_credential(
    open_client: Any, graphiql: bool
) -> None:
    query = "{ __schema { queryType { name } } }"
    with open_client(api=ApiSettings(cors_origins=(), graphiql=graphiql)) as client:
        answers = []
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "TRACE"):
            for path in ("/graphql", "/graphql/"):
                answers += [
                    client.request(method, path, params={"query": query}),
                    client.request(method, path, json={"query": query}),
                    client.request(method, path, params={"query": query}, headers={"accept": "application/json"}),
                    client.request(method, path, json={"query": query}, headers={"X-HTTP-Method-Override": "POST"}),
                ]
        for body in (
            [{"query": query}],
            {"query": "query A { getApiVersion } query B " + query, "operationName": "B"},
            {"query": query.replace("__schema", "s: __schema")},
            {"query": "{ ...F } fragment F on Query { __schema { queryType { name } } }"},
            {"query": "{ getApiVersion }", "extensions": {"persistedQuery": {"version": 1}}, "id": query},
        ):
            answers.append(client.post("/graphql", json=body))
        answers.append(client.post("/graphql", data={"query": query}))
        answers.append(client.post("/graphql", files={"query": (None, query)}))
        assert not [answer.text for answer in answers if '"Query"' in answer.text or "queryType" in answer.text]
        shown = [answer for answer in answers if answer.status_code == 200]
        assert all("GraphiQL" in each.text or each.request.method == "POST" for each in shown)


def test_errors_hint_at_no_names_of_the_schema_without_a_credential(client: TestClient, backend: Backend) -> None:
    documents = ("{ getItm }", "{ getHealth { statu } }", 'mutation { createInteraction(iput: {a: "b"}) { id } }')
    for query in documents:
        assert "Did you mean" not in client.post("/graphql", json={"query": query}).text
    assert "Did you mean" in backend.client.post("/graphql", json={"query": documents[1]}).text


def repeated(count: int) -> str:
    return "{" + " getApiVersion" * count + " }"


def aliased(count: int) -> str:
    return "{" + " ".join(f"a{number}: getApiVersion" for number in range(count)) + "}"


def distinct(count: int) -> str:
    return "{" + " ".join(f"f{number}" for number in range(count)) + "}"


def in_fragments(count: int) -> str:
    names = [f"F{number}" for number in range(count)]
    return "{ ...F0 }" + " ".join(f"fragment {name} on Query {{ a }}" for name in names)


def deep(levels: int) -> str:
    return "{ a " * levels + "}" * levels


@pytest.mark.parametrize("bounds", [WITH_CREDENTIAL, WITHOUT_CREDENTIAL], ids=["with", "without"])
@pytest.mark.parametrize(
    ("what", "build"),
    [("depth", deep), ("aliases", aliased), ("fields", distinct), ("fragments", in_fragments)],
)
def test_a_document_at_a_bound_passes_and_one_above_it_does_not(
    bounds: DocumentBounds, what: str, build: Callable[[int], str]
) -> None:
    at_bound = getattr(bounds, what)
    check(parse(build(at_bound)), None, bounds)
    with pytest.raises(Invalid, match=f"has more than {at_bound} "):
        check(parse(build(at_bound + 1)), None, bounds)


@pytest.mark.parametrize("bounds", [WITH_CREDENTIAL, WITHOUT_CREDENTIAL], ids=["with", "without"])
def test_the_text_and_the_comparisons_of_a_document_are_bounded(bounds: DocumentBounds) -> None:
    check_text("#" * bounds.length, bounds)
    with pytest.raises(Invalid, match="characters"):
        check_text("#" * (bounds.length + 1), bounds)
    fields = next(count for count in range(bounds.fields) if count * (count - 1) // 2 > bounds.comparisons)
    check(parse(repeated(fields - 1)), None, bounds)
    with pytest.raises(Invalid, match="repeats too many fields"):
        check(parse(repeated(fields)), None, bounds)


STRINGS = ['"text # of \\" marks"', '""', '"""a block " of "" text \\""" and # marks\nover lines"""', '""""""']
PUNCTUATORS = ["...", "{", "}", "(", ")", ":", "!", "$", "=", "@", "[", "]", "|", "&"]
WORDS = st.sampled_from(["a", "_b1", "1", "-2.5e+10", "0.1", "# a comment", *PUNCTUATORS, *STRINGS])


@given(st.lists(WORDS, max_size=40))
def test_tokens_are_counted_as_the_parser_counts_them(words: list[str]) -> None:
    text = "\n".join(words)
    lexer, count = Lexer(Source(text)), 0
    while lexer.advance().kind != TokenKind.EOF:
        count += 1
    check_text(text, dataclasses.replace(WITH_CREDENTIAL, tokens=count))
    if count:
        with pytest.raises(Invalid, match=f"has more than {count - 1} tokens"):
            check_text(text, dataclasses.replace(WITH_CREDENTIAL, tokens=count - 1))


@pytest.mark.parametrize(
    "text",
    ['"' + '\\"' * 49_999, '"' * 100_000, '"""' + '\\"""' * 24_999, '"\n' * 50_000, '"""a' * 25_000, "#\n" * 50_000],
)
def test_texts_without_an_end_are_read_once(text: str) -> None:
    started = time.process_time()
    with suppress(Invalid):
        check_text(text, WITH_CREDENTIAL)
    assert time.process_time() - started < QUICK_SECONDS


@pytest.mark.parametrize(
    "query",
    [repeated(499), "{" + "getHealth { status timestamp } " * 160 + "}", aliased(199)],
    ids=["499", "160", "aliases"],
)
def test_a_refused_document_is_freed_at_once(backend: Backend, query: str) -> None:
    """A document is thousands of objects. Left to the garbage collection, they stop the server while it runs."""
    refused(backend.client, query)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            refused(backend.client, query)
        assert not [each for each in gc.get_objects() if isinstance(each, DocumentNode | FieldNode)]
    finally:
        gc.enable()


def test_tokens_are_bounded_before_a_document_is_parsed_to_its_end(backend: Backend, client: TestClient) -> None:
    """Variables that nobody declares are an error of validation, which a document within the bound reaches."""
    for caller, tokens in ((backend.client, WITH_CREDENTIAL.tokens), (client, WITHOUT_CREDENTIAL.tokens)):
        most = "query (" + "$a: Int " * ((tokens - 6) // 4) + ") { getApiVersion }"
        assert "There can be only one variable named" in refused(caller, most)["detail"]
        assert "tokens" in refused(caller, most.replace("}", "x" + " x" * 4 + "}"))["detail"]


def test_a_caller_without_a_credential_has_tighter_bounds(client: TestClient, backend: Backend) -> None:
    for query in (aliased(6), repeated(12), repeated(499), aliased(499), in_fragments(4)):
        assert refused(client, query)["errors"]
    assert data(client, aliased(5)).keys() == {f"a{number}" for number in range(5)}
    assert len(data(backend.client, aliased(15))) == 15
    assert data(backend.client, repeated(45)).keys() == {"getApiVersion"}
    assert refused(backend.client, repeated(46))["detail"] == "query: repeats too many fields under the same name"


def test_comparisons_by_hand() -> None:
    for query, expected in (
        ("{ a b c }", 0),
        ("{ a a }", 1),
        ("{ a x: a x: b }", 1),
        ("{ a { b } a { b c } }", 2 * 3),
        ("{ a { b b } }", 1),
        ("{ a ... on Query { a } ...F } fragment F on Query { a }", 3),
        ("{ ...F ...F } fragment F on Query { a { b } }", 2 * 2),
        ("{ ...F } fragment F on Query { ...F a a }", 1 + 1),
    ):
        assert comparisons_of(parse(query)) == expected, query


SELECTIONS = st.recursive(
    st.sampled_from(["a", "b", "x: a", "__typename", "...F", "...G"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(" ".join)
        | inner.map(lambda fields: f"c {{ {fields} }}")
        | inner.map(lambda fields: f"... on T {{ {fields} }}")
    ),
    max_leaves=8,
)


@given(SELECTIONS, st.sampled_from(["a", "x: a", "c { a b ...G }"]), st.sampled_from(["a", "c { y: a }"]))
def test_the_extent_of_a_document_is_what_it_expands_to(main: str, f: str, g: str) -> None:
    def spelled(fields: str) -> str:
        return fields.replace("...F", f"... on T {{ {f} }}").replace("...G", f"... on T {{ {g} }}")

    document = f"{{ {main} }} fragment F on T {{ {f} }} fragment G on T {{ {g} }}"
    without_fragments = [extent_of(parse(f"{{ {spelled(fields)} }}")) for fields in (main, f, g)]
    assert extent_of(parse(document)) == reduce(Extent.plus, without_fragments)


def test_extents_by_hand() -> None:
    assert extent_of(parse("{ a b { c x: d } ...F } fragment F on T { e { f } }")) == Extent(8, 1, 2)
    assert root_fields(parse("{ a b { c x: d } y: a ...F __typename } fragment F on T { e { f } a }"), None) == 4
    assert root_fields(parse("query A { a } query B { a b c }"), "B") == 3


def post(client: TestClient, content: bytes | str, content_type: str = "application/json") -> int:
    started = time.monotonic()
    response = client.post("/graphql", content=content, headers={"content-type": content_type})
    assert time.monotonic() - started < 2 * QUICK_SECONDS
    assert response.json()["status"] == response.status_code
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"{ getApiVersion }"',
        b"{}",
        b'{"query": null}',
        b'{"query": ""}',
        b'{"query": 5}',
        b'[{"query": "{ getApiVersion }"}]',
        b'{"query": "{ getApiVersion }", "variables": []}',
        b'{"query": "{ getApiVersion }", "variables": "x"}',
        b'{"query": "{ getApiVersion }", "operationName": "Nobody"}',
        b'{"query": "{ getApiVersion }", "operationName": ["x"]}',
        b'{"query": "{ getApiVersion \xff }"}',
        b'{"query": "{ \\ud800 }"}',
        b'{"query": "{ a\\u0000b }"}',
        b'{"query": "{ getApiVersion }", "operationName": "\\ud800"}',
        b'{"query": "{ getApiVersion }", "variables": {"a": "\\ud800"}}',
        b'{"query": "{ getApiVersion }", "variables": {"a": "\\u0000"}}',
        b'{"query": "{ getApiVersion }", "variables": {"a": NaN}}',
        b'{"query": "{ getApiVersion }", "variables": {"a": ' + b"9" * 5_000 + b"}}",
        b'{"query": "{ getApiVersion }", "variables": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"query": "{ getApiVersion }"',
    ],
    ids=lambda content: content[:60].decode("latin-1"),
)
def test_a_body_that_is_no_request_is_a_400(client: TestClient, content: bytes) -> None:
    assert post(client, content) == 400


def test_the_values_of_a_body_are_bounded_and_the_text_of_a_document_is_none_of_them(client: TestClient) -> None:
    values = "[" + "1," * (MAX_BODY_VALUES - 9) + "1]"
    assert post(client, f'{{"query": "{{ nothing }}", "variables": {{"a": [{values}, {values}]}}}}') == 400
    most = client.post(
        "/graphql",
        content=f'{{"query": "{{ getApiVersion }}", "variables": {{"a": {values}}}}}',
        headers={"content-type": "application/json"},
    )
    assert most.status_code == 200
    body = refused(client, "{" * (MAX_BODY_VALUES + 1))
    assert body["detail"] == "query: has more than 2,000 characters"


@pytest.mark.parametrize("content_type", ["text/plain", "application/graphql", "multipart/form-data; boundary=x", "x"])
def test_a_body_of_another_type_is_a_400(client: TestClient, content_type: str) -> None:
    assert post(client, '{"query": "{ getApiVersion }"}', content_type) == 400


def test_a_body_of_10_megabytes_is_a_413(client: TestClient) -> None:
    assert post(client, b'{"query": "' + b"x" * 10_000_000 + b'"}') == 413


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"userId": "a", "count": 2**31},
        {"userId": "a", "count": 1.5},
        {"userId": "a", "count": True},
        {"userId": "a", "count": "1"},
        {"userId": None, "count": 1},
        {"userId": ["a"], "count": 1},
        {"userId": {"a": 1}, "count": 1},
    ],
)
def test_variables_of_the_wrong_type_are_a_400(backend: Backend, variables: dict[str, Any]) -> None:
    body = run(backend.client, RECOMMENDATIONS, status=400, **variables)
    assert body["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


def test_each_field_counts_as_a_request_of_its_caller(open_client: Any, tenants: Any) -> None:
    tenants.create()
    with open_client(limits=LimitSettings(per_key=10, per_ip=5, redis_url=None)) as client:
        client.headers = tenants.key()
        send = lambda query: client.post("/graphql", json={"query": query})  # noqa: E731
        single = send(VERSION)
        assert (single.headers["x-ratelimit-limit"], single.headers["x-ratelimit-remaining"]) == ("10", "9")
        three = client.post(
            "/graphql", json={"query": "{ a: getApiVersion b: getApiVersion __typename getApiVersion }"}
        )
        assert three.headers["x-ratelimit-remaining"] == "6"
        invalid = send("{ a: nothing b: nothing }")
        assert (invalid.status_code, invalid.headers["x-ratelimit-remaining"]) == (400, "5")
        six = "{" + " ".join(f"a{n}: getApiVersion" for n in range(6)) + "}"
        over = send(six)
        assert over.status_code == 429
        assert over.json()["title"] == "Too Many Requests"
        assert over.json()["errors"][0]["extensions"]["code"] == "TOO_MANY_REQUESTS"
        assert (over.headers["x-ratelimit-remaining"], "retry-after" in over.headers) == ("0", True)
        assert send(VERSION).status_code == 429
        client.headers = {}
        anonymous = send(HEALTH)
        assert (anonymous.headers["x-ratelimit-limit"], anonymous.headers["x-ratelimit-remaining"]) == ("5", "4")


def test_nothing_is_stored_past_the_limit(open_client: Any, tenants: Any) -> None:
    tenants.create()
    with open_client(limits=LimitSettings(per_key=3, redis_url=None)) as client:
        client.headers = tenants.key()
        client.post("/api/items", json={"id": "tea", "metadata": {}}).raise_for_status()
        field = 'recordInteraction(userId: "u", itemId: "tea", interactionType: "view") { success }'
        fields = " ".join(f"m{n}: {field}" for n in range(3))
        assert client.post("/graphql", json={"query": f"mutation {{ {fields} }}"}).status_code == 429
        found = tenants.run(_count)
        assert found == 0


async def _count(session: Any) -> int:
    from sqlalchemy import text

    connection = await session.connection()
    return int((await connection.execute(text("SELECT count(*) FROM interactions"))).scalar_one())


def test_the_editor_is_there_in_development_only(client: TestClient, open_client: Any) -> None:
    refused = client.get("/graphql", headers={"accept": "text/html"})
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert refused.headers["content-type"] == "application/problem+json"
    with open_client(api=ApiSettings(cors_origins=(), graphiql=True)) as development:
        page = development.get("/graphql")
        assert (page.status_code, "GraphiQL" in page.text) == (200, True)
        assert data(development, VERSION)


def test_the_openapi_document_has_it_with_summary_example_and_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["paths"]["/graphql"].keys() == {"post"}
    operation = document["paths"]["/graphql"]["post"]
    assert operation["summary"]
    assert {"200", "400", "429", "500"} <= operation["responses"].keys()
    assert {} in operation["security"]
    query = document["components"]["schemas"]["GraphQLRequest"]["properties"]["query"]["examples"][0]
    assert parse(query)
