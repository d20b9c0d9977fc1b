"""W3C trace context: the trace that a request belongs to, for problem details, log lines and the model server.

Where the settings name a collector, the request is a span of that trace (`configs/spans.py`).
"""

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from structlog.contextvars import bind_contextvars

from configs import spans

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
NOT_SAMPLED = "00"
"""The flags in `traceparent` of a trace that this process does not record."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a request, and this process's span in it."""

    trace_id: str
    span_id: str
    flags: str = "01"
    span: "Span | None" = None  # where it is recorded

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def begin(incoming: str | None) -> Trace:
    """Join the trace of an incoming `traceparent`, or start one where it is missing or malformed.

    From then on, every log line of this request carries the trace id.
    """
    match = _TRACEPARENT.fullmatch(incoming) if incoming else None
    if match is not None and (match[1] == _NO_TRACE or match[2] == _NO_SPAN or match[0].startswith("ff")):
        match = None
    if match is not None:
        trace_id, span_id, flags = match[1], secrets.token_hex(8), match[3]
    else:
        random = secrets.token_hex(24)
        trace_id, span_id, flags = random[:32], random[32:], None
    if (recorder := spans.recorder()) is None:
        trace = Trace(trace_id, span_id, flags or "01")
    elif recorder.samples(trace_id, flags):
        trace = _recorded(recorder, trace_id, match and spans.remote_context(trace_id, match[2], match[3]))
    else:
        spans.make_current(None)
        trace = Trace(trace_id, span_id, NOT_SAMPLED)
    _current.set(trace)
    bind_contextvars(trace_id=trace.trace_id)
    return trace


def _recorded(recorder: spans.SpanRecorder, trace_id: str, parent: "SpanContext | None") -> Trace:
    span = recorder.start("request", answers=True, parent=parent, trace_id=None if parent else trace_id)
    spans.make_current(span)
    context = span.get_span_context()
    return Trace(trace_id, f"{context.span_id:016x}", f"{int(context.trace_flags):02x}", span)


def end(method: str, route: str, status: int, tenant_id: str | None) -> None:
    """The current request has been answered, or cut off (status 0). Its path is not recorded: it may name a user."""
    trace = _current.get()
    if trace is None or trace.span is None:
        return
    span = trace.span
    span.update_name(f"{method} {route}".rstrip())
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
    if tenant_id is not None:
        span.set_attribute("recommendai.tenant", tenant_id)
    if status == 0 or status >= 500:
        span.set_attribute("error.type", str(status))
    span.end()


def trace_id() -> str:
    """The 32 hex digits of the current request's trace; empty outside of a request."""
    trace = _current.get()
    return trace.trace_id if trace else ""


def traceparent() -> str:
    """The current request's `traceparent`, to answer in `traceId` and to send to other services."""
    trace = _current.get()
    return trace.traceparent if trace else ""
