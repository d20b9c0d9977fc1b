"""Large bodies: what arrives in parts is read as one, whole or cut into rows."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.app import create_app
from api.http.bodies import BATCH_LIMIT, BodyParts
from tests.api.conftest import Tenants, configuration_of
from tests.fixtures.live import served

HALF = "metadata: holds a NUL or half of a surrogate pair"
PART = 60_000


@given(parts=st.lists(st.binary(max_size=9)), declared=st.booleans())
def test_parts_make_the_whole(parts: list[bytes], declared: bool) -> None:
    whole = b"".join(parts)
    headers = [(b"content-length", b"%d" % len(whole))] if declared else [(b"transfer-encoding", b"chunked")]
    body = BodyParts({"type": "http", "headers": headers})
    for part in parts:
        body.add(part)
    assert bytes(body.whole()) == whole


def test_parts_up_to_the_limit_make_the_whole() -> None:
    body = BodyParts({"type": "http", "headers": []})
    for letter in b"abcd":
        body.add(bytes([letter]) * (BATCH_LIMIT // 4))
    whole = body.whole()
    assert len(whole) == BATCH_LIMIT
    assert {bytes(whole[at : at + 1]) for at in range(0, BATCH_LIMIT, BATCH_LIMIT // 4)} == {b"a", b"b", b"c", b"d"}


@pytest.fixture(scope="module")
def client(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    configuration = configuration_of(module_database_url, tmp_path_factory.mktemp("bodies"))
    tenants = Tenants(module_database_url)
    headers = {**tenants.key(tenants.create("bodies"), rate_limit=0), "content-type": "application/json"}
    with served(create_app(configuration)) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def _declared(body: bytes) -> bytes:
    return body


def _in_chunks(body: bytes) -> Iterator[bytes]:
    return (body[start : start + PART] for start in range(0, len(body), PART))


@pytest.mark.parametrize("keyed", [False, True], ids=["without a key", "with a key"])
@pytest.mark.parametrize("sent", [_declared, _in_chunks])
def test_a_batch_of_many_parts_is_read_row_by_row(
    client: httpx.Client, sent: Callable[[bytes], bytes | Iterator[bytes]], keyed: bool
) -> None:
    """Rows with halves of surrogate pairs, wherever a part of the body ends, are refused and leave the others alone."""
    prefix = f"{sent.__name__}{keyed}-"
    rows = [
        f'{{"id": "{prefix}{row}", "metadata": {{"text": "{"x" * 1_999}", "pair": "\\ud83c\\udf75{half}"}}}}'
        for row, half in enumerate(["", "\\ud83c", "", "\\udf75"] * 150)
    ]
    rows.insert(9, '{"metadata": {"text": "' + "\\udf75" * 100_000 + '"}}')  # no quote in 600 kB
    body = f'{{"items": [{", ".join(rows)}]}}'.encode()
    headers = {"idempotency-key": prefix} if keyed else {}
    answers = [client.post("/api/items/batch", content=sent(body), headers=headers) for _ in range(1 + keyed)]
    results = answers[0].json()["results"]
    statuses = [201, 400] * 300
    statuses.insert(9, 400)
    assert [result["status"] for result in results] == statuses
    errors = {result["error"] for result in results if result["status"] == 400}
    assert errors == {HALF, "has more than 262,144 bytes"}
    kept = client.get(f"/api/items/{prefix}598").json()["metadata"]
    assert kept == {"text": "x" * 1_999, "pair": "🍵"}
    assert {answer.content for answer in answers} == {answers[0].content}
    assert "idempotent-replayed" not in answers[0].headers
    assert not keyed or answers[1].headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("sent", [_declared, _in_chunks])
def test_a_body_of_many_parts_is_decoded_as_one(
    client: httpx.Client, sent: Callable[[bytes], bytes | Iterator[bytes]]
) -> None:
    body = json.dumps({"userId": "u", "count": 1, "more": "x" * 3 * PART}).encode()
    answer = client.post("/api/v1/recommend", content=sent(body), headers={"idempotency-key": sent.__name__})
    assert answer.status_code == 200, answer.text
