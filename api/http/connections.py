"""Bounds what a connection may take: uvicorn's protocol with time-outs for slow peers, and a bound on connections.

uvicorn itself waits without end for a header, for a body, and for a peer that does not read its response. Here one
sweep a second looks at all connections of the process, so that a request costs no timer. A peer that is cut gets a 408
where no response has begun. Beyond the bound on connections the one that has waited longest for a request makes room;
where all are at work, the new one gets a 503.
"""

import contextvars
import math
from asyncio import AbstractEventLoop, Transport
from collections import Counter
from enum import Enum, auto
from functools import cache
from typing import Any, cast

import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api.http import tracing
from api.http.headers import SECURITY
from api.http.problems import MEDIA_TYPE, Problem, problem_body
from configs.api import ServerSettings

SWEEP_SECONDS = 1.0
PIECE_BYTES = 16 * 1024
"""Bytes of a body that are parsed in one iteration of the loop, since they may hold thousands of chunks."""
HEADER_PIECE_BYTES = 2 * 1024
"""The same where a request begins. They may hold a hundred pipelined requests, and other connections as many."""
MAX_PIPELINED = 16
"""Parsed requests that wait for the answer before theirs. Beyond it, no more of the connection is parsed."""
LAST_REQUEST_SECONDS = 1.0
"""How long a process that ends waits for the request of a connection that has brought none."""
FULL = "All connections are in use"

log = structlog.get_logger(__name__)


class _Stage(Enum):
    """What has arrived of the newest request."""

    NOTHING = auto()
    HEADER = auto()
    BODY = auto()
    ALL = auto()


@cache
def _settings() -> ServerSettings:
    return ServerSettings()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Its age in a stage is counted in sweeps."""

    def __init__(
        self, config: Any, server_state: ServerState, app_state: dict[str, Any], _loop: AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds = _settings()
        self._sweep = _sweep_of(server_state, self.loop)
        self._stage = _Stage.NOTHING
        self.since = self._sweep.number  # when the stage, or the window of a body, began
        self._received = 0  # bytes of the header, or of the window of a body
        self._unparsed: list[bytes] = []
        self._is_held = False  # parsing waits until fewer pipelined requests wait
        self._running: RequestResponseCycle | None = None  # `cycle` is the newest one, which may still be queued
        self._unsent: tuple[int, int] | None = None  # bytes that the peer had not taken, and when
        self._is_ending = False  # the process ends: the next response is the connection's last

    @property
    def is_waiting(self) -> bool:
        """Whether the connection is open for nothing but a request whose header has not arrived."""
        return self._running is None or self._running.response_complete

    @property
    def is_incomplete(self) -> bool:
        """Whether the application may be waiting for more of the body."""
        return self._stage is _Stage.BODY and not self.flow.read_paused

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._sweep.start()
        if len(self.connections) > self._bounds.max_connections:
            self._sweep.evict_for(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._unparsed:
            self._unparsed.append(data)
        elif len(data) <= self._piece_bytes and len(self.pipeline) <= MAX_PIPELINED:
            self._parse(data)
            return
        else:
            self._unparsed.append(data)
            self._parse_next()
        if self._unparsed and self.transport.is_reading():
            self.transport.pause_reading()

    @property
    def _piece_bytes(self) -> int:
        return PIECE_BYTES if self._stage is _Stage.BODY else HEADER_PIECE_BYTES

    def _parse_next(self) -> None:
        if not self._unparsed or self.transport.is_closing():
            return
        if len(self.pipeline) > MAX_PIPELINED:
            self._is_held = True
            return
        data, size = self._unparsed[0], self._piece_bytes
        if len(data) > size:
            self._unparsed[0] = data[size:]
        else:
            del self._unparsed[0]
        self._parse(data[:size])
        if self.transport.is_closing():
            return
        if self._unparsed:
            self.loop.call_soon(self._parse_next)
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def _parse(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self._stage is _Stage.HEADER and self._received > self._bounds.max_header_bytes:
            self.refuse(Problem(431, f"The header has more than {self._bounds.max_header_bytes:,} bytes"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._enter(_Stage.HEADER)

    def on_headers_complete(self) -> None:
        self._enter(_Stage.BODY)
        super().on_headers_complete()
        if self._is_ending:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._enter(_Stage.ALL)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._stage is _Stage.ALL:
            self._enter(_Stage.NOTHING)
        super().on_response_complete()
        if self._is_held and len(self.pipeline) <= MAX_PIPELINED:
            self._is_held = False
            self.loop.call_soon(self._parse_next)

    def shutdown(self) -> None:
        """The process ends. A connection on which no request has come, or a part of one, ends with the answer to it."""
        if self._stage is _Stage.HEADER or (self._stage is _Stage.NOTHING and self._running is None):
            self._is_ending = True
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_unused)
        else:
            super().shutdown()

    def _close_unused(self) -> None:
        if self._stage is _Stage.NOTHING and not self.transport.is_closing():
            self.transport.close()

    def resume_writing(self) -> None:
        self._unsent = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self.refuse(Problem(400, msg))

    def check(self) -> str | None:
        """Cut this connection where its peer is too slow. Returns the reason."""
        if self._is_unread():
            self._disconnect()
            self.transport.abort()
            return "response not read"
        if self.transport.is_closing():
            return None
        age = self._sweep.number - self.since
        if self._stage in (_Stage.NOTHING, _Stage.HEADER):
            if not self.is_waiting:
                self.since = self._sweep.number
            elif age >= _sweeps(self._bounds.header_seconds):
                return self._cut("no header")
        elif self._stage is _Stage.BODY:
            if self.flow.read_paused or self._unparsed:  # it is the application that is slow
                self._enter(_Stage.BODY)
            elif age >= _sweeps(self._bounds.body_seconds):
                if self._received < self._bounds.body_seconds * self._bounds.min_bytes_per_second:
                    return self._cut("slow body")
                self._enter(_Stage.BODY)
        return None

    def _is_unread(self) -> bool:
        """Whether the peer has taken too few bytes of its response for too long."""
        size = self.transport.get_write_buffer_size()
        number = self._sweep.number
        if not size:
            self._unsent = None
        elif self._unsent is None:
            self._unsent = (size, number)
        elif number - self._unsent[1] >= _sweeps(self._bounds.response_seconds):
            taken = self._unsent[0] - size
            if taken < self._bounds.response_seconds * self._bounds.min_bytes_per_second:
                return True
            self._unsent = (size, number)
        return False

    def _cut(self, reason: str) -> str:
        if self._stage is _Stage.NOTHING:
            self.transport.close()
        else:
            self.refuse(Problem(408, "The request did not arrive in time"))
        return reason

    def give_way(self) -> None:
        """Close this connection in favour of another. It is waiting for a request."""
        self._cut("evicted")

    def refuse(self, problem: Problem) -> None:
        """Close the connection, with this answer where no response has begun. The application sees a disconnect."""
        if not self._disconnect():
            self.transport.write(_response(problem))
        self.transport.close()

    def _disconnect(self) -> bool:
        """Tell the application that the peer is gone. Returns whether its response had begun."""
        self.pipeline.clear()
        if self._running is None or self._running.response_complete:
            return False
        self._running.disconnected = True
        self._running.message_event.set()
        return self._running.response_started

    def _enter(self, stage: _Stage) -> None:
        self._stage = stage
        self.since = self._sweep.number
        self._received = 0


class _Sweep:
    """Checks all connections of a server once a second, as long as there are any."""

    def __init__(self, connections: set[BoundedProtocol], loop: AbstractEventLoop) -> None:
        self.number = 0
        self._connections = connections
        self._loop = loop
        self._is_running = False

    def start(self) -> None:
        if not self._is_running:
            self._is_running = True
            self._loop.call_later(SWEEP_SECONDS, self._run)

    def _run(self) -> None:
        self.number += 1
        checked = [connection.check() for connection in tuple(self._connections)]
        if reasons := Counter(reason for reason in checked if reason is not None):
            log.info("slow connections closed", reasons=dict(reasons))
        self._is_running = False
        if self._connections:
            self.start()

    def evict_for(self, new: BoundedProtocol) -> None:
        """Close the connection that has waited longest for a request, or the new one where all are at work."""
        others = [each for each in self._connections if each is not new and not each.transport.is_closing()]
        waiting = [each for each in others if each.is_waiting] or [each for each in others if each.is_incomplete]
        if waiting:
            min(waiting, key=lambda each: each.since).give_way()
        else:
            new.refuse(Problem(503, FULL, headers={"Retry-After": "1"}))


def _sweep_of(server_state: ServerState, loop: AbstractEventLoop) -> _Sweep:
    found = getattr(server_state, "sweep", None)
    if found is None:
        found = _Sweep(cast(set[BoundedProtocol], server_state.connections), loop)
        server_state.sweep = found  # type: ignore[attr-defined]
    return cast(_Sweep, found)


def _sweeps(seconds: float) -> int:
    return math.ceil(seconds / SWEEP_SECONDS)


def _response(problem: Problem) -> bytes:
    """A problem as the bytes of a response, outside of a request."""

    def encode() -> bytes:
        tracing.begin(None)
        return msgspec.json.encode(problem_body(problem))

    body = contextvars.copy_context().run(encode)
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *((name.lower().encode(), value.encode()) for name, value in (problem.headers or {}).items()),
        *SECURITY,
    ]
    lines = [name + b": " + value + b"\r\n" for name, value in headers]
    return b"".join([STATUS_LINE[problem.status_code], *lines, b"\r\n", body])
