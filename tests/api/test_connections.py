"""Slow peers and many connections, on real sockets of a real API process."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.conftest import Tenants
from tests.fixtures.live import ApiProcess, api_process
from tests.fixtures.platform import PATIENCE_SECONDS, wait_until

SECONDS = 2
SLOW = {
    "API_HEADER_SECONDS": str(SECONDS),
    "API_BODY_SECONDS": str(SECONDS),
    "API_RESPONSE_SECONDS": str(SECONDS),
    "RATE_LIMIT_IP": "1000000",
}
HEADER = b"GET /health HTTP/1.1\r\nHost: slow\r\n"
POST = b"POST /api/auth/login HTTP/1.1\r\nHost: slow\r\nContent-Type: application/json\r\n"
BODY = POST + b"Content-Length: 100000\r\n\r\n{"
LAST = b"Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def api(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    with api_process(module_database_url, tmp_path_factory.mktemp("api"), **SLOW) as process:
        yield process


def connect(api: ApiProcess) -> socket.socket:
    port = int(api.url.rsplit(":", 1)[1])
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def rest(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionResetError:
        pass
    return received


def problem(answer: bytes, status: int) -> dict[str, Any]:
    """The problem in the bytes of a response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert b"content-type: application/problem+json" in head and b"connection: close" in head
    assert b"x-content-type-options: nosniff" in head
    found: dict[str, Any] = json.loads(body)
    assert found.keys() == {"type", "title", "status", "detail", "traceId"}
    assert (found["status"], len(found["traceId"])) == (status, 55)
    return found


def trickle(connections: list[socket.socket], byte: bytes) -> list[bytes]:
    """Send a byte on each connection twice a second until the server has closed it; what each was answered."""
    answers = {connection: b"" for connection in connections}
    is_open = set(connections)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_open:
        assert time.monotonic() < deadline, f"{len(is_open)} connections are still open"
        for connection in select.select(list(is_open), [], [], 0.5)[0]:
            answers[connection] += rest(connection)
            is_open.remove(connection)
        for connection in tuple(is_open):
            try:
                connection.send(byte)
            except (BrokenPipeError, ConnectionResetError):
                is_open.remove(connection)
    return [answers[connection] for connection in connections]


def test_500_slow_senders_are_cut_and_keep_nobody_out(api: ApiProcess) -> None:
    """A third of them sends its header byte by byte, a third its body, a third sends nothing at all or line feeds."""
    beginnings = [HEADER + b"X: ", BODY, b""]
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connect(api))) for _ in range(500)]
        for number, connection in enumerate(slow):
            connection.sendall(beginnings[number % 3])
        for _ in range(20):
            assert httpx.get(f"{api.url}/health", timeout=PATIENCE_SECONDS).text == "Healthy"
        silent = slow[2::3]
        answers = trickle(slow[0::3], b"x") + trickle(slow[1::3], b" ")
        for answer in answers:
            assert problem(answer, 408)["title"] == "Request Timeout"
        assert {rest(connection) for connection in silent} == {b""}
        assert httpx.get(f"{api.url}/health", timeout=PATIENCE_SECONDS).text == "Healthy"


def test_line_feeds_are_no_request(api: ApiProcess) -> None:
    with closing(connect(api)) as connection:
        assert trickle([connection], b"\r\n") == [b""]


def test_a_body_that_goes_on_after_its_answer_is_cut(api: ApiProcess) -> None:
    """A route that needs a credential answers before the whole body is there, and keeps the connection for it."""
    with closing(connect(api)) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: slow\r\nContent-Length: 1000\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404")
        trickle([connection], b"x")


def test_who_never_reads_an_answer_is_cut(api: ApiProcess) -> None:
    requests = 400
    with closing(connect(api)) as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: slow\r\n\r\n" * requests)
        wait_until("the connection is cut", lambda: "response not read" in api.log.read_text())
        assert "Traceback" not in api.log.read_text()
        assert rest(connection).count(b"HTTP/1.1 200") < requests
        assert httpx.get(f"{api.url}/health", timeout=PATIENCE_SECONDS).text == "Healthy"


def test_a_sender_that_makes_progress_is_waited_for(api: ApiProcess) -> None:
    """Two and a half times as long as a sender without progress has, at a little more than the least rate."""
    size = int(SECONDS * 2.5 * 2_000)
    body = b'{"email": "' + b"x" * size + b'"}'
    with closing(connect(api)) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n" % len(body) + LAST)
        began, sent = time.monotonic(), 0
        while sent < len(body):  # by the clock, so that a busy machine does not make the sender too slow
            due = 500 + int(2_000 * (time.monotonic() - began))
            connection.sendall(body[sent:due])
            sent = due
            time.sleep(0.25)
        assert rest(connection).startswith(b"HTTP/1.1 400")


def test_a_header_of_32_kilobytes_is_read_and_a_larger_one_is_431(api: ApiProcess) -> None:
    for size, status in ((32 * 1024 - 200, 200), (64 * 1024, 431)):
        with closing(connect(api)) as connection:
            connection.sendall(HEADER + b"X: " + b"x" * size + b"\r\n" + LAST)
            answer = rest(connection)
            assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:100]
    assert problem(answer, 431)["title"] == "Request Header Fields Too Large"


def test_what_is_not_http_is_a_400(api: ApiProcess) -> None:
    with closing(connect(api)) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        problem(rest(connection), 400)


def test_thousands_of_requests_at_once_and_a_body_in_tiny_chunks_are_answered_in_order(api: ApiProcess) -> None:
    with closing(connect(api)) as connection:
        connection.sendall((HEADER + b"\r\n") * 2_999 + HEADER + LAST)
        assert rest(connection).count(b"Healthy") == 3_000
    with closing(connect(api)) as connection:
        body = b'{"email": "a@b.example", "password": "x", "more": "' + b"x" * 100_000 + b'"}'
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n" + LAST + chunks + b"0\r\n\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 401")


def test_beyond_the_bound_on_connections_a_waiting_one_makes_room(database_url: str, tmp_path: Path) -> None:
    with api_process(database_url, tmp_path, API_MAX_CONNECTIONS="20") as api, ExitStack() as stack:
        time.sleep(0.5)  # the connections that found out whether it is up have gone
        most = [stack.enter_context(closing(connect(api))) for _ in range(20)]
        for connection in most[1:]:
            connection.sendall(HEADER)
        assert select.select(most, [], [], 0.5)[0] == []
        assert httpx.get(f"{api.url}/health", timeout=PATIENCE_SECONDS).text == "Healthy"
        closed = select.select(most, [], [], PATIENCE_SECONDS)[0]
        assert len(closed) == 1


def test_where_all_connections_are_at_work_a_new_one_is_503(
    database_url: str, tmp_path: Path, tenants: Tenants
) -> None:
    tenants.create()
    (name, value), *_ = tenants.key().items()
    request = f"GET /api/items HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n\r\n".encode()
    with ExitStack() as stack:
        api = stack.enter_context(api_process(database_url, tmp_path, API_MAX_CONNECTIONS="5"))
        time.sleep(0.5)  # the connections that found out whether it is up have gone
        holder = stack.enter_context(psycopg.connect(database_url))
        holder.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        at_work = [stack.enter_context(closing(connect(api))) for _ in range(5)]
        for connection in at_work:
            connection.sendall(request)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'items'::regclass"
        wait_until("all wait for the table", lambda: holder.execute(waiting).fetchall() == [(5,)])
        answer = rest(stack.enter_context(closing(connect(api))))
        assert problem(answer, 503)["detail"] == "All connections are in use"
        assert b"retry-after: 1" in answer
        holder.rollback()
        assert {connection.recv(1 << 16)[:15] for connection in at_work} == {b"HTTP/1.1 200 OK"}
