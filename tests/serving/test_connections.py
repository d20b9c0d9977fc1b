"""The client's connections against servers on real sockets, well-behaved and not."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from serving import connections
from serving.connections import HttpAnswer, KeptConnections

Scenario = Callable[[KeptConnections, "Served"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


FACTORY: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {}


@pytest.fixture(autouse=True, params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in both event loops: the API's is uvloop, and their transports differ."""
    monkeypatch.setitem(FACTORY, "of", request.param)


def in_loop(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=FACTORY["of"]) as runner:
        runner.run(work)


class Served:
    """What a server saw: the requests, and the number of connections."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.began = asyncio.Event()  # with the first request

    async def request(self, reader: asyncio.StreamReader) -> bytes | None:
        """The next request of a connection; None at its end."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        self.requests.append(head + await reader.readexactly(length))
        self.began.set()
        return self.requests[-1]


def run(scenario: Scenario, *responses: bytes, prefix: str = "") -> Served:
    """Run a scenario against a server that sends these responses in turn, the last one for ever.

    An empty response closes the connection instead of answering.
    """
    served = Served()
    turns = list(responses)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        while await served.request(reader) is not None:
            response = turns.pop(0) if len(turns) > 1 else turns[0]
            if not response:
                break
            writer.write(response)
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        kept = KeptConnections(f"http://{prefix}{host}:{port}")
        try:
            await asyncio.wait_for(scenario(kept, served), 60)
        finally:
            await kept.close()
            server.close()

    in_loop(main())
    return served


async def post(kept: KeptConnections, body: bytes = b"hello") -> HttpAnswer:
    return await kept.exchange("POST", "/v1/batch", body, "text/plain")


def test_requests_that_follow_each_other_share_a_connection() -> None:
    async def scenario(kept: KeptConnections, _: Served) -> None:
        for _turn in range(3):
            assert await post(kept) == HttpAnswer(200, {"content-length": "2"}, b"ok")

    served = run(scenario, OK)
    assert served.connections == 1
    head, _, body = served.requests[-1].partition(b"\r\n\r\n")
    assert body == b"hello"
    assert head.splitlines()[0] == b"POST /v1/batch HTTP/1.1"
    assert {b"content-length: 5", b"content-type: text/plain"} <= set(head.splitlines())


def test_requests_of_the_same_moment_have_a_connection_each() -> None:
    async def scenario(kept: KeptConnections, _: Served) -> None:
        answers = await asyncio.gather(*(post(kept) for _ in range(8)))
        assert {answer.body for answer in answers} == {b"ok"}

    assert run(scenario, OK).connections == 8


def test_connections_are_bounded() -> None:
    async def scenario(kept: KeptConnections, _: Served) -> None:
        answers = await asyncio.gather(*(post(kept) for _ in range(connections.MAX_CONNECTIONS * 3)))
        assert len(answers) == connections.MAX_CONNECTIONS * 3

    assert run(scenario, OK).connections <= connections.MAX_CONNECTIONS


def test_a_kept_connection_that_was_closed_is_replaced_and_a_new_one_is_not() -> None:
    async def scenario(kept: KeptConnections, _: Served) -> None:
        assert (await post(kept)).body == b"ok"
        assert (await post(kept)).body == b"ok"  # the kept connection was closed at this request
        with pytest.raises(ConnectionResetError):
            await post(KeptConnections(f"http://127.0.0.1:{kept._port}"))

    served = run(scenario, OK, b"", OK, b"")
    assert len(served.requests) == 4


def test_a_connection_that_the_server_ends_is_not_used_again() -> None:
    async def scenario(kept: KeptConnections, _: Served) -> None:
        for _turn in range(2):
            assert (await post(kept)).body == b"ok"

    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    assert run(scenario, closing).connections == 2


def test_an_idle_connection_is_given_up_before_the_server_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "KEEP_ALIVE_SECONDS", 0.0)

    async def scenario(kept: KeptConnections, _: Served) -> None:
        for _turn in range(2):
            assert (await post(kept)).body == b"ok"

    assert run(scenario, OK).connections == 2


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", (200, b"abcde")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b"ok")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", (503, b"busy")),
    ],
    ids=["chunks", "interim response", "no content", "error"],
)
def test_every_form_of_response_is_understood(response: bytes, expected: tuple[int, bytes]) -> None:
    async def scenario(kept: KeptConnections, _: Served) -> None:
        for _turn in range(2):
            answer = await post(kept)
            assert (answer.status, answer.body) == expected

    assert run(scenario, response).connections == 1


@pytest.mark.parametrize(
    "response",
    [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b""],
    ids=["another protocol", "a body cut short", "nothing"],
)
def test_a_server_that_breaks_off_is_an_error(response: bytes) -> None:
    async def scenario(kept: KeptConnections, _: Served) -> None:
        with pytest.raises(OSError, match=r"HTTP|closed"):
            await post(kept)

    assert len(run_once_and_close(scenario, response).requests) == 1


def run_once_and_close(scenario: Scenario, response: bytes) -> Served:
    """As `run`, with a server that closes each connection after one response."""
    served = Served()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await served.request(reader)
        writer.write(response)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        kept = KeptConnections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            await asyncio.wait_for(scenario(kept, served), 60)
        finally:
            await kept.close()
            server.close()

    in_loop(main())
    return served


def test_a_response_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_ANSWER_BYTES", 1_000)

    async def scenario(kept: KeptConnections, _: Served) -> None:
        with pytest.raises(OSError, match="more than 1000 bytes"):
            await post(kept)

    run(scenario, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5_000)


def test_an_exchange_that_is_given_up_takes_its_connection_along() -> None:
    """Otherwise the late response would answer the request after it."""

    async def scenario(kept: KeptConnections, served: Served) -> None:
        task = asyncio.create_task(post(kept, b"first"))
        await served.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await post(kept, b"second")).body == b"second's"

    # The first response stays incomplete until the connection ends.
    run(scenario, b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsecond's")


def test_a_response_that_nobody_asked_for_is_never_taken_for_an_answer() -> None:
    async def scenario(kept: KeptConnections, _: Served) -> None:
        assert (await post(kept)).body == b"ok"
        await asyncio.sleep(0.1)
        assert (await post(kept)).body == b"mine"

    mine = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"
    assert run(scenario, OK + OK, mine).connections == 2


def test_nobody_listens() -> None:
    async def scenario() -> None:
        with pytest.raises(OSError, match=r"\w"):
            await post(KeptConnections("http://127.0.0.1:9"))

    in_loop(scenario())


def test_credentials_of_the_address_are_sent() -> None:
    async def scenario(kept: KeptConnections, _: Served) -> None:
        assert (await post(kept)).body == b"ok"

    served = run(scenario, OK, prefix="user:p%40ss@")
    assert b"authorization: Basic dXNlcjpwQHNz\r\n" in served.requests[0]


@pytest.mark.parametrize("url", ["ftp://host/", "host:3000", "http://"])
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="HTTP URL"):
        KeptConnections(url)
