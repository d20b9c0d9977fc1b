"""Bounds request bodies: their bytes, with and without a `Content-Length`, and how many JSON values they hold."""

import math
import mmap

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.headers import header
from api.http.problems import Invalid, Problem, problem_response
from api.http.slices import turn

LIMIT = 2 * 1024 * 1024
BATCH_LIMIT = 16 * 1024 * 1024
DOCUMENTS = "/graphql"
"""Its route counts values itself, because the text of a document may look like many."""
MAX_BODY_VALUES = 25_000
"""Bound on the JSON values of a body, and of each row of a batch. Decoding and validating so many takes a few
milliseconds; legal bodies hold fewer: `values_in` metadata of 32 kB is 21,840 at most."""
MAX_BATCH_VALUES = 3_000_000
"""Bound on the JSON values of a whole batch, whose rows are found in one pass: 10 ms for so many."""
SMALL = 16 * 1024
"""Bodies up to this size are decoded without waiting for a turn."""


def is_batch(path: str) -> bool:
    """Whether the route takes up to 16 MB. Its rows are decoded one by one (see `api.http.batches`)."""
    return path.endswith("/batch")


def values_in(text: bytes) -> int:
    """An upper bound on the JSON values in a text, or in a part of one: their separators and beginnings."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def blank_memory(size: int) -> memoryview:
    """Writable memory of `size` bytes, at least one, that the machine provides page by page as it is first written.

    The pages of one `bytes` of 16 MB are provided while it is made, which can hold up the event loop for 60 ms.
    """
    return memoryview(mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class BodyParts:
    """Collects the parts of a body that is within `BATCH_LIMIT`, each in the time that its own bytes take."""

    def __init__(self, scope: Scope) -> None:
        declared = header(scope, b"content-length")
        self._size = int(declared) if declared is not None and declared.isdigit() else BATCH_LIMIT
        self._first: bytes = b""
        self._memory: memoryview | None = None
        self._length = 0

    def add(self, part: bytes) -> None:
        if not self._first:
            self._first = part
        elif part:
            if self._memory is None:
                self._memory = blank_memory(self._size)
                self._memory[: self._length] = self._first
            self._memory[self._length : self._length + len(part)] = part
        self._length += len(part)

    def whole(self) -> bytes | memoryview:
        """The body: the part itself where there is only one."""
        return self._first if self._memory is None else self._memory[: self._length]


class BodyLimits:
    """ASGI middleware: answers 413 to bodies over 2 MB, and over 16 MB on paths that end in `/batch`; and 400 to bodies
    of too many values. The last part of a large body waits for its turn, since decoding follows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = BATCH_LIMIT if is_batch(scope["path"]) else LIMIT
        declared = header(scope, b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            await problem_response(_too_large(limit))(scope, receive, send)
            return
        await self._app(scope, bounded(receive, limit, _max_values(scope["path"])), send)


def bounded(receive: Receive, limit: int, max_values: float) -> Receive:
    """`receive` within the bounds. Raises Problem (413, 400) at the message that exceeds one."""
    received = values = 0

    async def receive_bounded() -> Message:
        nonlocal received, values
        message = await receive()
        if message["type"] == "http.request":
            body = message.get("body", b"")
            received += len(body)
            if received > limit:
                raise _too_large(limit)
            values += values_in(body)
            if values > max_values:
                raise too_many_values(max_values)
            if received > SMALL and not message.get("more_body", False):
                await turn()
        return message

    return receive_bounded


def _max_values(path: str) -> float:
    if is_batch(path):
        return MAX_BATCH_VALUES
    return math.inf if path == DOCUMENTS else MAX_BODY_VALUES


def too_many_values(limit: float = MAX_BODY_VALUES) -> Invalid:
    """The 400 of a body whose decoding would take too long."""
    message = f"The body holds more than {limit:,} JSON values"
    return Invalid(message, [{"field": "", "message": message}])


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The body is larger than {limit // 1024 // 1024} MB", headers={"Connection": "close"})
