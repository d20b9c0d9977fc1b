"""W3C trace context: the trace that a request belongs to, for problem details, log lines and the model server."""

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

from structlog.contextvars import bind_contextvars

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a request, and this process's span in it."""

    trace_id: str
    span_id: str
    flags: str = "01"

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def begin(incoming: str | None) -> Trace:
    """Join the trace of an incoming `traceparent`, or start one where it is missing or malformed.

    From then on, every log line of this request carries the trace id.
    """
    match = _TRACEPARENT.fullmatch(incoming) if incoming else None
    random = secrets.token_hex(24)
    span = random[32:]
    if match is None or match[1] == _NO_TRACE or match[2] == _NO_SPAN or match[0].startswith("ff"):
        trace = Trace(random[:32], span)
    else:
        trace = Trace(match[1], span, match[3])
    _current.set(trace)
    bind_contextvars(trace_id=trace.trace_id)
    return trace


def trace_id() -> str:
    """The 32 hex digits of the current request's trace; empty outside of a request."""
    trace = _current.get()
    return trace.trace_id if trace else ""


def traceparent() -> str:
    """The current request's `traceparent`, to answer in `traceId` and to send to other services."""
    trace = _current.get()
    return trace.traceparent if trace else ""
