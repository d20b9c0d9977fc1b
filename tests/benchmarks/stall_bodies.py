"""The worst legal requests that `make bench-stalls` sends: the largest bodies, and those that cost most to read."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from graphql import get_introspection_query

BATCH_BODY = 16 * 1024 * 1024 - 1024
BODY = 2 * 1024 * 1024 - 1024
METADATA = 32 * 1024 - 64
ROWS = 1_000
ITEMS = "/api/items"
ITEM_BATCH, INTERACTION_BATCH = "/api/items/batch", "/api/v1/interactions/batch"
RECOMMEND, GRAPHQL = "/api/v1/recommend", "/graphql"


@dataclass(frozen=True)
class Kind:
    """One kind of request: the bytes that each client sends again and again on one connection."""

    name: str
    request: Callable[[dict[str, str]], bytes]
    """From the headers of the credential."""
    credential: bool = True
    responses: int = 1
    """How many responses one sending gets."""


def request(
    method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> Callable[[dict[str, str]], bytes]:
    def build(credential: dict[str, str]) -> bytes:
        more = {"Content-Type": "application/json", "Content-Length": str(len(body)), **credential, **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "stalls", **more}.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body

    return build


def post(name: str, path: str, body: bytes, credential: bool = True, **headers: str) -> Kind:
    return Kind(f"{name}, {_size(len(body))}", request("POST", path, body, headers), credential)


def get(name: str, path: str, credential: bool = True) -> Kind:
    return Kind(name, request("GET", path), credential)


def kinds() -> list[Kind]:
    """All kinds, the first of which loads nothing."""
    text = b'"' + b"tea and more tea " * (METADATA // 17 - 1) + b'"'
    numbers, empties = _filled(b"1", METADATA), _filled(b"[]", METADATA)
    words = b'"' + b"tea " * ((BATCH_BODY - 99) // 4) + b'"'
    halves = b'"' + rb"\ud83c" * (METADATA // 6) + b'"'
    keys = b"{" + b",".join(b'"key%d":%d' % (number, number) for number in range(METADATA // 16)) + b"}"
    interaction = b'{"userId":"user-%d","itemId":"item-%d","interactionType":"view"}'
    aliased = "{" + " ".join(f"a{number}: getApiVersion" for number in range(499)) + "}"
    repeated = "{" + "getApiVersion " * 499 + "}"
    nested = "{" + "getHealth { status timestamp } " * 160 + "}"
    recommended = " ".join(
        f'a{number}: getRecommendations(userId: "user-{number}", count: 100) {{ itemId score algorithm explanation }}'
        for number in range(15)
    )
    condition = [{f"key{number}": {"$in": [f"{number}-{value}" for value in range(9)]}} for number in range(99)]
    return [
        Kind("nothing beside the probe", request("GET", "/health"), responses=0),
        post("items, 1,000 rows of 3 kB of text", ITEM_BATCH, _items(text[:3000] + b'"', ROWS)),
        post("items, rows of 32 kB of text", ITEM_BATCH, _items(text)),
        post("items, rows of 32 kB of numbers", ITEM_BATCH, _items(numbers)),
        post("items, rows of 32 kB of empty lists", ITEM_BATCH, _items(empties)),
        post("items, 180 rows of 32 kB of numbers", ITEM_BATCH, _items(numbers, 180)),
        post("items, 135 rows of 32 kB of empty lists", ITEM_BATCH, _items(empties, 135)),
        post("items, rows of 32 kB of keys", ITEM_BATCH, _items(keys)),
        post("items, one row of empty lists", ITEM_BATCH, _items(_filled(b"[]", BATCH_BODY - 99), 1)),
        post("items, 1,000 rows of other types", ITEM_BATCH, b"[" + b",".join([_filled(b"1", 16_000)] * ROWS) + b"]"),
        post("items, not JSON at the end", ITEM_BATCH, _items(numbers)[:-1] + b"!"),
        post("items, one text instead of rows", ITEM_BATCH, b'{"items":' + words + b"}"),
        post("items, rows of halves of surrogate pairs", ITEM_BATCH, _items(halves)),
        post("items, twice with an Idempotency-Key", ITEM_BATCH, _items(text), **{"Idempotency-Key": "stalls"}),
        post("items without a credential", ITEM_BATCH, _items(empties), credential=False),
        post("interactions, 1,000 rows", INTERACTION_BATCH, _rows([interaction % (n, n) for n in range(ROWS)])),
        post(
            "interactions with fields that nobody reads",
            INTERACTION_BATCH,
            _rows([(interaction % (n, n))[:-1] + b',"more":' + _filled(b"[]", 16_000) + b"}" for n in range(ROWS)]),
        ),
        post("interactions, 1,000 invalid rows", INTERACTION_BATCH, _rows([b'{"userId":1,"value":2}'] * ROWS)),
        post("an item of too much metadata", ITEMS, b'{"metadata":{"a":' + _filled(b"[]", BODY - 99) + b"}}"),
        post("an item of numbers", ITEMS, b'{"metadata":{"a":' + numbers + b"}}"),
        post("recommend with fields that nobody reads", RECOMMEND, _recommend(b'"more":' + _filled(b"[]", BODY - 99))),
        post("recommend without 1,000 long ids", RECOMMEND, _recommend(b'"exclude":' + _ids(ROWS))),
        post("recommend without ids that are none", RECOMMEND, _recommend(b'"exclude":' + _filled(b"1", BODY - 99))),
        post(
            "recommend by 99 conditions",
            RECOMMEND,
            _recommend(b'"filter":' + json.dumps({"$or": condition}).encode()),
        ),
        post("GraphQL, 499 aliases without a credential", GRAPHQL, _graphql(aliased), credential=False),
        post("GraphQL, a field 499 times without a credential", GRAPHQL, _graphql(repeated), credential=False),
        post("GraphQL, a field 499 times", GRAPHQL, _graphql(repeated)),
        post("GraphQL, an object 160 times", GRAPHQL, _graphql(nested)),
        post("GraphQL, variables of empty lists", GRAPHQL, _graphql("{getApiVersion}", _filled(b"[]", BODY - 99))),
        post("GraphQL, 15 lists of 100 items", GRAPHQL, _graphql(f"{{ {recommended} }}")),
        post("GraphQL, introspection", GRAPHQL, _graphql(get_introspection_query())),
        post(
            "a login of empty lists",
            "/api/auth/login",
            b'{"email":"a@b.example","password":"x","more":' + _filled(b"[]", BODY - 99) + b"}",
            credential=False,
        ),
        get("a page of 100 items of 32 kB", f"{ITEMS}?pageSize=100"),
        get("a search of 1,000 characters", f"{ITEMS}?search={'tea%20and%20' * 100}"),
        get("the OpenAPI document", "/openapi.json", credential=False),
        Kind("2,000 pipelined requests", lambda _: request("GET", "/nothing")({}) * 2_000, responses=2_000),
        Kind("a body in chunks of one byte, 2 MB on the wire", _chunked),
    ]


def _filled(value: bytes, size: int) -> bytes:
    """A JSON array of this many bytes or a few less, all of its elements this value."""
    return b"[" + b",".join([value] * ((size - 2) // (len(value) + 1))) + b"]"


def _items(value: bytes, rows: int | None = None) -> bytes:
    """As many rows as fit, or these: items without an id, with this value in their metadata."""
    row = b'{"metadata":{"a":' + value + b"}}"
    return b'{"items":[' + b",".join([row] * (rows or min(ROWS, BATCH_BODY // (len(row) + 1)))) + b"]}"


def _rows(rows: list[bytes]) -> bytes:
    return b'{"interactions":[' + b",".join(rows) + b"]}"


def _ids(count: int) -> bytes:
    return json.dumps([f"{number}".rjust(250, "日") for number in range(count)], ensure_ascii=False).encode()


def _recommend(more: bytes) -> bytes:
    return b'{"userId":"user-1","count":100,' + more + b"}"


def _graphql(query: str, variables: bytes = b"") -> bytes:
    more = b',"variables":{"a":' + variables + b"}" if variables else b""
    return b'{"query":' + json.dumps(query).encode() + more + b"}"


def _chunked(credential: dict[str, str]) -> bytes:
    headers = {"Host": "stalls", "Content-Type": "application/json", "Transfer-Encoding": "chunked", **credential}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = b'{"userId":"user-1","count":10,"more":"' + b"x" * (BODY // 6) + b'"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    return f"POST {RECOMMEND} HTTP/1.1\r\n{head}\r\n".encode() + chunks + b"0\r\n\r\n"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
