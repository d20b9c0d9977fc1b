"""Clients that go on whatever happens, and remember every answer. Runs as a process of its own: a plan on stdin, until
stdin is closed; then it writes what it saw to stdout, both as JSON.

Each client has one connection and sends its next request on an answer. As every HTTP client does, it sends a request
again on a new connection where a kept connection turns out to be closed before any byte of an answer, and connects
again where a connection is refused.
"""

import asyncio
import itertools
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import uvloop

PAUSE_SECONDS = 0.05
"""Between two attempts to connect."""
CUT_OFF = 0
"""The status of a request whose answer broke off, or never came on a new connection."""


@dataclass(frozen=True)
class TrafficPlan:
    """What the clients send: all together cycle through the requests."""

    host: str
    port: int
    headers: dict[str, str]
    requests: list[tuple[str, str]]  # path and body
    clients: int


@dataclass
class _Memory:
    """What came back."""

    # started, milliseconds, status, and the numbers of: request, degraded, release, retry-after, body
    answers: list[tuple[float, float, int, int, int, int, int, int]] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=lambda: {"": 0})
    sent_again: int = 0
    refused: int = 0

    def number(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))


class _Client:
    """One connection at a time."""

    def __init__(self, plan: TrafficPlan, memory: _Memory) -> None:
        self._plan = plan
        self._memory = memory
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def turn(self, number: int, request: bytes) -> None:
        """Send a request and remember its answer."""
        started = time.monotonic()
        status, head, body = CUT_OFF, b"", b""
        for attempt in itertools.count():
            kept = self._streams is not None
            reader, writer = await self._connected()
            got = False
            try:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                got = True
                fields = _fields(head)
                body = await reader.readexactly(int(fields[b"content-length"]))
                status = int(head.split(b" ", 2)[1])
                if fields.get(b"connection", b"").lower() == b"close":
                    self._close()
                break
            except (OSError, asyncio.IncompleteReadError) as error:
                got = got or bool(getattr(error, "partial", b""))
                self._close()
                if got or not kept or attempt > 3:
                    status, head, body = CUT_OFF, b"", b""
                    break
                self._memory.sent_again += 1
        fields = _fields(head)
        number_of = self._memory.number
        self._memory.answers.append(
            (
                started,
                (time.monotonic() - started) * 1000,
                status,
                number,
                number_of(fields.get(b"x-recommendation-degraded", b"").decode()),
                number_of(fields.get(b"x-model-release", b"").decode()),
                number_of(fields.get(b"retry-after", b"").decode()),
                number_of(body.decode()),
            )
        )

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._streams is None:
            try:
                self._streams = await asyncio.open_connection(self._plan.host, self._plan.port)
            except OSError:
                self._memory.refused += 1
                await asyncio.sleep(PAUSE_SECONDS)
        return self._streams

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:] if line]
    return {name.strip().lower(): value.strip() for name, _, value in lines}


async def send_until_told(plan: TrafficPlan) -> dict[str, Any]:
    """Send until stdin is closed. Requests that are in flight then are still answered."""
    memory, stop = _Memory(), asyncio.Event()
    requests = [_encoded(plan, path, body) for path, body in plan.requests]
    numbers = itertools.cycle(range(len(requests)))

    async def client() -> None:
        mine = _Client(plan, memory)
        while not stop.is_set():
            number = next(numbers)
            await mine.turn(number, requests[number])

    clients = [asyncio.create_task(client()) for _ in range(plan.clients)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    stop.set()
    done, cut = await asyncio.wait(clients, timeout=30)
    for task in cut:  # such as one that still tries to connect
        task.cancel()
    await asyncio.gather(*done)
    return {
        "answers": memory.answers,
        "texts": list(memory.texts),
        "sent_again": memory.sent_again,
        "refused": memory.refused,
    }


def _encoded(plan: TrafficPlan, path: str, body: str) -> bytes:
    encoded = body.encode()
    own = {
        "Host": f"{plan.host}:{plan.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(encoded)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in {**own, **plan.headers}.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + encoded


if __name__ == "__main__":
    print(json.dumps(uvloop.run(send_until_told(TrafficPlan(**json.loads(sys.stdin.readline()))))))
