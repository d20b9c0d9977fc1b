"""OpenTelemetry traces: what a request or a run did and how long each part took, sent by OTLP to a collector.

A span is a part with a beginning and an end. Spans of one trace form a tree across processes. Where no setting names a
collector, nothing is recorded and OpenTelemetry is not imported.

Most traces are not recorded. The trace id decides which are, before any span is made, so that the others cost next to
nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pydantic import Field

from configs.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, SpanContext

TRACES_PATH = "/v1/traces"
MAX_QUEUE = 2_048
"""Spans that wait for the next message to the collector. Further ones are dropped, so that no request waits."""
SEND_SECONDS = 5.0
"""Between two messages, and the time that a collector has to take one."""
SAMPLED = 0x01
"""The bit of a trace's flags which says that its spans are recorded."""

Attributes = Mapping[str, str | int | float | bool]

_current: ContextVar["Span | None"] = ContextVar("span", default=None)
_drawn_trace_id: ContextVar[int | None] = ContextVar("trace_id", default=None)
"""The id of the trace whose first span is being started, where it was drawn before."""
_NOTHING: AbstractContextManager[None] = nullcontext()


class SpanSettings(Settings):
    """Where traces go. The names are OpenTelemetry's, whose exporter reads its other variables by itself."""

    endpoint: str | None = Field(
        default=None,
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        pattern=r"^https?://",
        description="URL of an OTLP collector, such as http://127.0.0.1:4318; default: no traces",
    )
    sampled: float = Field(
        default=0.05,
        alias="OTEL_TRACES_SAMPLER_ARG",
        ge=0,
        le=1,
        description="share of the requests whose traces are recorded",
    )


class SpanRecorder:
    """Records the spans of a process and sends them in the background."""

    def __init__(self, program: str, sampled: float, exporter: "SpanExporter", follow_callers: bool) -> None:
        """
        program: the `service.name` of its spans.
        sampled: share of the traces that are recorded, in [0, 1].
        follow_callers: whether a caller decides that its trace is recorded; a stranger must not.
        """
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON, TraceIdRatioBased

        class TraceIds(RandomIdGenerator):
            """Random ids, except that of a trace whose id was drawn before its first span."""

            def generate_trace_id(self) -> int:
                drawn = _drawn_trace_id.get()
                return super().generate_trace_id() if drawn is None else drawn

        self._bound = TraceIdRatioBased.get_bound_for_rate(sampled)
        self._follow_callers = follow_callers
        self._provider = TracerProvider(
            ALWAYS_ON,
            Resource.create({SERVICE_NAME: f"recommendai-{program}"}),
            shutdown_on_exit=False,
            id_generator=TraceIds(),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=MAX_QUEUE, schedule_delay_millis=SEND_SECONDS * 1000)
        )
        self._tracer = self._provider.get_tracer("recommendai")

    def samples(self, trace_id: str, flags: str | None = None) -> bool:
        """Whether a trace is recorded in this process, from the hexadecimal fields of its `traceparent`.

        flags: the caller's; None where the trace begins here. A trace that its caller does not record is not recorded.
        Otherwise the id decides as OpenTelemetry's `TraceIdRatioBased` does, so that processes with one share agree.
        """
        if flags is not None:
            if not int(flags, 16) & SAMPLED:
                return False
            if self._follow_callers:
                return True
        return int(trace_id[16:], 16) < self._bound

    def start(
        self,
        name: str,
        *,
        parent: "Span | SpanContext | None" = None,
        answers: bool = False,
        links: Sequence["SpanContext"] = (),
        attributes: Attributes | None = None,
        began_ns: int | None = None,
        trace_id: str | None = None,
    ) -> "Span":
        """A recorded span that begins now, or at `began_ns` since the epoch. Whoever starts it calls its `end`.

        answers: whether it is the answer to another process. links: other spans that it works for.
        trace_id: of the trace that begins with it, 32 hexadecimal digits; None: a random one. Not with a parent.
        """
        from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, set_span_in_context

        context = None
        if parent is not None:
            context = set_span_in_context(NonRecordingSpan(parent) if isinstance(parent, SpanContext) else parent)
        token = _drawn_trace_id.set(None if trace_id is None else int(trace_id, 16))
        try:
            return self._tracer.start_span(
                name,
                context,
                SpanKind.SERVER if answers else SpanKind.INTERNAL,
                attributes,
                [Link(each) for each in links],
                began_ns,
            )
        finally:
            _drawn_trace_id.reset(token)

    def close(self) -> None:
        """Send what waits, within `SEND_SECONDS`."""
        self._provider.force_flush(int(SEND_SECONDS * 1000))
        self._provider.shutdown()


_recorder: SpanRecorder | None = None


@contextmanager
def recording(program: str, settings: SpanSettings, *, follow_callers: bool = False) -> Iterator[SpanRecorder | None]:
    """Within the block, this process records spans, if the settings name a collector."""
    global _recorder  # noqa: PLW0603 - one of a process, as its loggers are
    if settings.endpoint is None:
        yield None
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(settings.endpoint.rstrip("/") + TRACES_PATH, timeout=SEND_SECONDS)
    _recorder = recorder = SpanRecorder(program, settings.sampled, exporter, follow_callers)
    try:
        yield recorder
    finally:
        _recorder = None
        recorder.close()


def recorder() -> SpanRecorder | None:
    """The recorder of this process; None where it records nothing."""
    return _recorder


def make_current(span: "Span | None") -> None:
    """What happens from now on in this task happens within the span; None: within none that is recorded."""
    _current.set(span)


def part(name: str) -> AbstractContextManager[None]:
    """Within the block, a span of this name runs within the current one. Nothing happens where none is recorded."""
    parent = _current.get()
    return _NOTHING if parent is None or _recorder is None else _part(_recorder, name, parent)


@contextmanager
def _part(recorder: SpanRecorder, name: str, parent: "Span") -> Iterator[None]:
    span = recorder.start(name, parent=parent)
    token = _current.set(span)
    try:
        yield
    except BaseException as error:
        span.set_attribute("error.type", type(error).__name__)
        raise
    finally:
        _current.reset(token)
        span.end()


@contextmanager
def part_for(name: str, callers: Sequence["SpanContext"]) -> Iterator["SpanContext | None"]:
    """Within the block, a span of this name runs within the first of these, and is linked to the others."""
    if not callers or _recorder is None:
        yield None
        return
    span = _recorder.start(name, parent=callers[0], links=callers[1:], attributes={"queries": len(callers)})
    try:
        yield span.get_span_context()
    finally:
        span.end()


@contextmanager
def answer_to(name: str, traceparent: str) -> Iterator[None]:
    """Within the block, a span answers another process, whose span this W3C header names, as `traceparent_of` does."""
    fields = traceparent.split("-")
    if (
        _recorder is None
        or [len(each) for each in fields] != [2, 32, 16, 2]
        or not _recorder.samples(fields[1], fields[3])
    ):
        yield
        return
    span = _recorder.start(name, answers=True, parent=remote_context(*fields[1:]))
    token = _current.set(span)
    try:
        yield
    finally:
        _current.reset(token)
        span.end()


def current_context() -> "SpanContext | None":
    """Of the current span; None where none is recorded."""
    span = _current.get()
    return None if span is None else span.get_span_context()


def traceparent_of(context: "SpanContext") -> str:
    """The W3C header that another process continues the trace by."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def remote_context(trace_id: str, span_id: str, flags: str) -> "SpanContext":
    """The span of another process, from the hexadecimal fields of its `traceparent`."""
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16) & SAMPLED))
