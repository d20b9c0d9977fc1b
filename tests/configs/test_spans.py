"""Whether a trace is recorded is decided by its id, as OpenTelemetry decides it, before any span is made."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from api.http import tracing
from configs import spans

CALLER = "00f067aa0ba902b7"


@contextmanager
def _recorder(
    sampled: float, *, follow_callers: bool = False
) -> Iterator[tuple[spans.SpanRecorder, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    recorder = spans.SpanRecorder("test", sampled, exporter, follow_callers)
    try:
        yield recorder, exporter
    finally:
        recorder.close()


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """This process records half of its traces."""
    with _recorder(0.5) as (recorder, exporter):
        monkeypatch.setattr(spans, "_recorder", recorder)
        yield exporter


@pytest.mark.parametrize("follow_callers", [False, True])
def test_a_trace_is_recorded_where_opentelemetry_would_record_it(follow_callers: bool) -> None:
    draw = random.Random(0)
    for share in (0.0, 0.05, 0.5, 1.0):
        by_id = TraceIdRatioBased(share)
        reference = ParentBased(by_id, remote_parent_sampled=ALWAYS_ON if follow_callers else by_id)
        with _recorder(share, follow_callers=follow_callers) as (recorder, _):
            for trace_id in (1, 2**64 - 1, 2**128 - 1, *(draw.getrandbits(128) for _ in range(200))):
                text = f"{trace_id:032x}"
                assert recorder.samples(text) is reference.should_sample(None, trace_id, "").decision.is_sampled()
                for flags in ("00", "01", "02", "03"):
                    parent = set_span_in_context(NonRecordingSpan(spans.remote_context(text, CALLER, flags)))
                    expected = reference.should_sample(parent, trace_id, "").decision.is_sampled()
                    assert recorder.samples(text, flags) is expected


def test_a_trace_that_is_not_recorded_makes_no_span(recording: InMemorySpanExporter) -> None:
    trace = tracing.begin(f"00-{'f' * 32}-{CALLER}-01")
    assert trace.span is None
    assert trace.traceparent == f"00-{'f' * 32}-{trace.span_id}-00"
    with spans.part("a part"):
        assert spans.current_context() is None
    with spans.answer_to("an answer", trace.traceparent):
        assert spans.current_context() is None
    tracing.end("GET", "/", 200, None)
    assert recording.get_finished_spans() == ()


def test_a_trace_that_begins_here_is_recorded_under_the_id_by_which_it_was_chosen(
    recording: InMemorySpanExporter,
) -> None:
    flags = {}
    for _ in range(64):
        trace = tracing.begin(None)
        flags[trace.trace_id] = int(trace.flags, 16) & spans.SAMPLED
        with spans.part("a part"):
            pass
        tracing.end("GET", "/", 200, None)
    recorder = spans.recorder()
    assert recorder is not None
    chosen = {trace_id for trace_id, sampled in flags.items() if sampled}
    assert chosen == {trace_id for trace_id in flags if recorder.samples(trace_id)}
    assert 0 < len(chosen) < len(flags)
    spans.make_current(None)
    recorder.close()
    found = [f"{span.get_span_context().trace_id:032x}" for span in recording.get_finished_spans()]
    assert sorted(found) == sorted([*chosen, *chosen])  # the request and its part
