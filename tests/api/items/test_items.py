"""Items over HTTP, on a real PostgreSQL."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from api.http.batches import MAX_ROW_BYTES
from api.http.bodies import MAX_BODY_VALUES, SMALL
from tests.fixtures.backend import Backend, running_backend

HEADPHONES = {"title": "Wireless Headphones Pro", "category": "Electronics", "price": 149.99, "tags": ["audio"]}


def version_of(backend: Backend) -> int:
    return backend.sql("SELECT version FROM catalogues WHERE tenant_id = %s", [backend.tenant_id])[0][0]


def test_an_item_has_the_fields_of_the_contract_and_comes_back_as_sent(backend: Backend) -> None:
    created = backend.post("/api/items", {"id": "h1", "metadata": HEADPHONES}, status=201)
    assert created.keys() == {"id", "tenantId", "metadata", "isActive", "createdAt", "updatedAt"}
    assert (created["id"], created["tenantId"], created["isActive"]) == ("h1", "shop", True)
    assert created["metadata"] == HEADPHONES
    assert created["createdAt"].endswith("Z")
    assert backend.client.get("/api/items/h1").json() == created


def test_an_id_is_made_up_where_none_is_sent(backend: Backend) -> None:
    first, second = (backend.post("/api/items", {"metadata": {}}, status=201)["id"] for _ in range(2))
    assert first != second


def test_a_taken_id_is_409_and_changes_nothing(backend: Backend) -> None:
    backend.post("/api/items", {"id": "h1", "metadata": {"a": 1}}, status=201)
    version = version_of(backend)
    backend.post("/api/items", {"id": "h1", "metadata": {"a": 2}}, status=409)
    assert backend.client.get("/api/items/h1").json()["metadata"] == {"a": 1}
    assert version_of(backend) == version


@pytest.mark.parametrize("id_", ["a/b", "ä ö", "a?b#c", "100%", "日本", "..", "a\\b", "x" * 256])
def test_any_legal_id_works_in_a_path(backend: Backend, id_: str) -> None:
    backend.post("/api/items", {"id": id_, "metadata": {}}, status=201)
    path = f"/api/items/{quote(id_, safe='')}" if id_ != ".." else "/api/items/%2E%2E"
    assert backend.client.get(path).json()["id"] == id_
    assert backend.client.put(path, json={"metadata": {"a": 1}}).json()["metadata"] == {"a": 1}
    assert backend.client.delete(path).status_code == 204
    assert backend.client.get(path).status_code == 404


def test_put_replaces_all_and_patch_merges(backend: Backend) -> None:
    backend.post("/api/items", {"id": "h1", "metadata": {"a": 1, "b": {"c": 2, "d": 3}}}, status=201)
    patched = backend.client.patch("/api/items/h1", json={"metadata": {"a": None, "b": {"c": 4}}, "isActive": False})
    assert (patched.json()["metadata"], patched.json()["isActive"]) == ({"b": {"c": 4, "d": 3}}, False)
    merge_patch = {"content-type": "application/merge-patch+json"}
    again = backend.client.patch("/api/items/h1", content=b'{"metadata": {"e": 5}}', headers=merge_patch)
    assert again.json()["metadata"] == {"b": {"c": 4, "d": 3}, "e": 5}
    assert again.json()["isActive"] is False
    replaced = backend.client.put("/api/items/h1", json={"metadata": {"z": 1}})
    assert (replaced.json()["metadata"], replaced.json()["isActive"]) == ({"z": 1}, True)
    assert replaced.json()["updatedAt"] > replaced.json()["createdAt"]


def test_a_deleted_item_is_gone_and_its_id_may_come_back(backend: Backend) -> None:
    backend.post("/api/items", {"id": "h1", "metadata": HEADPHONES}, status=201)
    assert backend.client.delete("/api/items/h1").status_code == 204
    for response in (
        backend.client.get("/api/items/h1"),
        backend.client.delete("/api/items/h1"),
        backend.client.put("/api/items/h1", json={"metadata": {}}),
        backend.client.patch("/api/items/h1", json={}),
    ):
        assert response.status_code == 404
    assert backend.client.get("/api/items").json()["total"] == 0
    assert backend.sql("SELECT metadata FROM items") == [({},)]
    assert backend.post("/api/items", {"id": "h1", "metadata": {"b": 1}}, status=201)["metadata"] == {"b": 1}


def test_every_write_is_a_step_of_the_catalogues_version(backend: Backend) -> None:
    versions = [version_of(backend)]
    backend.post("/api/items", {"id": "h1", "metadata": {}}, status=201)
    versions.append(version_of(backend))
    backend.client.patch("/api/items/h1", json={"isActive": False})
    versions.append(version_of(backend))
    backend.client.delete("/api/items/h1")
    versions.append(version_of(backend))
    assert versions == [0, 1, 2, 3]
    assert backend.sql("SELECT version FROM items") == [(3,)]


def test_a_batch_answers_for_every_row_and_loses_no_good_one(backend: Backend) -> None:
    backend.post("/api/items", {"id": "old", "metadata": {}}, status=201)
    rows: list[Any] = [
        {"id": "new", "metadata": {"a": 1}},
        {"id": "old", "metadata": {}},
        {"id": "new", "metadata": {}},
        {"id": "x" * 257, "metadata": {}},
        "no object",
        {"metadata": {"n": "a\0b"}},
        {"metadata": {}},
    ]
    answer = backend.post("/api/items/batch", {"items": rows})
    assert [result["status"] for result in answer["results"]] == [201, 409, 409, 400, 400, 400, 201]
    assert [result["index"] for result in answer["results"]] == list(range(7))
    assert (answer["succeeded"], answer["failed"]) == (2, 5)
    assert all(("error" in result) == (result["status"] != 201) for result in answer["results"])
    assert backend.client.get("/api/items/new").json()["metadata"] == {"a": 1}
    assert backend.client.get("/api/items").json()["total"] == 3
    backend.post("/api/items/batch", {"items": []}, status=400)
    backend.post("/api/items/batch", {"items": [{"metadata": {}}] * 1001}, status=400)


def test_a_large_batch_is_read_row_by_row(backend: Backend) -> None:
    """Rows that cannot be read, in a body so large that it is cut into rows first, leave the others alone."""
    text = "tea " * 2_000
    good = json.dumps({"id": "good", "metadata": {"text": text, "path": "C:\\ud800", "pair": "\ud83c\udf75"}})
    rows = [
        good,
        '{"id": "half", "metadata": {"a": "x\\ud83c"}}',
        '{"id": "other half", "metadata": {"a": "\\udf75\\ud83c"}}',
        json.dumps({"id": "long", "metadata": {}, "more": "x" * MAX_ROW_BYTES}),
        json.dumps({"id": "many", "metadata": {"a": [1] * MAX_BODY_VALUES}}, separators=(",", ":")),
        '{"id": "deep", "metadata": {"a": ' + "[" * 900 + "]" * 900 + "}}",
        "5",
        json.dumps({"id": "spaced", "metadata": {"a": 1}}, indent=200),
    ]
    body = f'{{"more": [], "items": [{", ".join(rows)}]}}'
    assert len(body) > 16 * SMALL
    response = backend.client.post("/api/items/batch", content=body, headers={"content-type": "application/json"})
    results = response.json()["results"]
    assert [result["status"] for result in results] == [201, 400, 400, 400, 400, 400, 400, 201]
    half = "metadata: holds a NUL or half of a surrogate pair"
    assert [result["error"] for result in results[1:6]] == [
        half,
        half,
        "has more than 262,144 bytes",
        "has more than 25,000 values",
        "metadata: is nested deeper than 16 levels",
    ]
    assert backend.client.get("/api/items/good").json()["metadata"] == json.loads(good)["metadata"]
    assert backend.client.get("/api/items/spaced").json()["metadata"] == {"a": 1}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"items": [' + "1, " * 9_000 + "!]}", "not valid JSON: invalid character at position 27011"),
        ("[" * 9_000 + "]" * 9_000, "error parsing the body"),
        ('{"items": ' + '"' + "x" * 20_000 + '"}', "items: Input should be a valid list"),
        ('{"items": [], "more": "' + "x" * 20_000 + '"}', "items: List should have at least 1 item"),
        ('"' + "x" * 20_000 + '"', "body: Input should be a valid list"),
        ('{"rows": [' + "1," * 9_000 + "1]}", "items: Field required"),
        ("[" + "{}," * 1_000 + "{}]" + " " * 20_000, "items: List should have at most 1000 items"),
    ],
    ids=lambda body: body[:24],
)
def test_a_large_body_that_is_no_batch_is_a_400(backend: Backend, body: str, words: str) -> None:
    assert len(body) > SMALL
    response = backend.client.post("/api/items/batch", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, words in response.json()["detail"]) == (400, True), response.text


def test_pages_cover_the_catalogue_once(backend: Backend) -> None:
    backend.add_items({f"i{number}": {} for number in range(7)})
    pages = [backend.client.get("/api/items", params={"page": page, "pageSize": 3}).json() for page in (1, 2, 3, 4)]
    assert [len(page["data"]) for page in pages] == [3, 3, 1, 0]
    assert {(page["total"], page["pageSize"]) for page in pages} == {(7, 3)}
    assert [item["id"] for page in pages for item in page["data"]] == [f"i{number}" for number in range(7)]
    for bad in ({"page": 0}, {"pageSize": 0}, {"pageSize": 101}, {"page": "x"}):
        assert backend.client.get("/api/items", params=bad).status_code == 400


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("headphone", ["h1", "h2"]),  # the stem of headphones
        ("audio", ["h1"]),  # anywhere in the metadata
        ("headphones wired", ["h2"]),
        ("映画", ["jp"]),  # a part of a word that has no spaces around it
        ("loud", []),
        ("title", []),  # a key is no text
        ("100%", []),
    ],
)
def test_search_is_full_text_over_all_metadata(backend: Backend, search: str, expected: list[str]) -> None:
    backend.add_items(
        {
            "h1": HEADPHONES,
            "h2": {"title": "Wired headphones", "specs": {"colour": "black"}},
            "jp": {"title": "日本の映画音楽"},
        }
    )
    found = backend.client.get("/api/items", params={"search": search}).json()
    assert sorted(item["id"] for item in found["data"]) == expected
    assert found["total"] == len(expected)


def test_search_ranks_what_says_it_more_often_first(backend: Backend) -> None:
    backend.add_items({"a": {"t": "tea and more and more words"}, "b": {"t": "tea tea tea"}})
    found = backend.client.get("/api/items", params={"search": "tea"}).json()
    assert [item["id"] for item in found["data"]] == ["b", "a"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (b'{"a": NaN}', "not finite"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a": 1' + b"0" * 309 + b"}", "range of a double"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"a": ' + b"[" * 20 + b"]" * 20 + b"}", "nested"),
        (b'{"a": "' + b"x" * 300_000 + b'"}', "bytes"),
        (b"[]", "dictionary"),
        (b"null", "dictionary"),
    ],
)
def test_metadata_that_cannot_be_stored_is_400(backend: Backend, metadata: bytes, words: str) -> None:
    body = b'{"id": "x", "metadata": ' + metadata + b"}"
    response = backend.client.post("/api/items", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert words in response.json()["errors"][0]["message"]
    assert response.json()["errors"][0]["field"] == "metadata"


def _sized(size: int) -> dict[str, Any]:
    """Metadata that has exactly this many bytes as JSON."""
    return {"a": "x" * (size - len('{"a":""}'))}


def test_metadata_of_32_kilobytes_is_taken_and_one_byte_more_is_400(backend: Backend) -> None:
    most, too_much = _sized(32 * 1024), _sized(32 * 1024 + 1)
    problem = "has 32769 bytes; at most 32768 are kept"
    backend.post("/api/items", {"id": "a", "metadata": most}, status=201)
    refused = backend.post("/api/items", {"metadata": too_much}, status=400)
    assert refused["errors"] == [{"field": "metadata", "message": problem}]
    batch = backend.post("/api/items/batch", [{"id": "b", "metadata": most}, {"metadata": too_much}])
    assert [result["status"] for result in batch["results"]] == [201, 400]
    assert batch["results"][1]["error"] == f"metadata: {problem}"
    assert backend.client.put("/api/items/a", json={"metadata": most}).status_code == 200
    assert backend.client.put("/api/items/a", json={"metadata": too_much}).status_code == 400
    merged = backend.client.patch("/api/items/a", json={"metadata": {"b": 1}})
    assert (merged.status_code, merged.json()["errors"][0]["field"]) == (400, "metadata")
    assert backend.client.patch("/api/items/a", json={"metadata": {"a": "x"}}).status_code == 200


def test_the_largest_numbers_come_back_as_they_were(backend: Backend) -> None:
    metadata = {"a": 2**63, "b": -(2**63), "c": 1.7976931348623157e308, "d": 0.1, "e": 5e-324}
    backend.post("/api/items", {"id": "n", "metadata": metadata}, status=201)
    stored = backend.client.get("/api/items/n").json()["metadata"]
    assert {key: float(value) for key, value in stored.items()} == {
        key: float(value) for key, value in metadata.items()
    }
    assert (stored["a"], stored["b"]) == (2**63, -(2**63))
    assert backend.client.patch("/api/items/n", json={"metadata": {"f": 1}}).json()["metadata"] == stored | {"f": 1}


def test_another_tenants_item_is_404(open_client: Any, tenants: Any) -> None:
    with running_backend(open_client, tenants, "one") as one, running_backend(open_client, tenants, "two") as two:
        one.post("/api/items", {"id": "same", "metadata": {"of": "one"}}, status=201)
        assert two.client.get("/api/items/same").status_code == 404
        assert two.client.put("/api/items/same", json={"metadata": {}}).status_code == 404
        assert two.client.delete("/api/items/same").status_code == 404
        two.post("/api/items", {"id": "same", "metadata": {"of": "two"}}, status=201)
        assert one.client.get("/api/items/same").json()["metadata"] == {"of": "one"}
        assert one.client.get("/api/items", params={"search": "two"}).json()["total"] == 0


def test_writing_needs_the_write_scope(open_client: Any, tenants: Any) -> None:
    tenants.create("shop")
    reader = tenants.key("shop", ["read"])
    with open_client() as client:
        assert client.post("/api/items", json={"metadata": {}}, headers=reader).status_code == 403
        assert client.get("/api/items", headers=reader).status_code == 200
        assert client.get("/api/items").status_code == 401
