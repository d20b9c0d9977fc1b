"""Runs that have ended are traces: a span of the run, and one of each step within it."""

import dagster as dg
import pytest

from pipelines.defs.traces.sensors import traces
from tests.fixtures.collector import running_collector


@dg.op
def works() -> None:
    """Nothing."""


@dg.op
def breaks() -> None:
    raise ValueError("the address of ann")


@dg.job(tags={"dagster/partition": "acme"})
def small_run() -> None:
    works()
    breaks()


def test_a_run_that_ended_is_sent_once_with_its_steps_and_without_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_collector() as collector, dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")  # a share of requests, not of runs
        small_run.execute_in_process(instance=instance, raise_on_error=False)
        first = dg.build_sensor_context(instance=instance)
        traces(first)
        assert collector.spans == []  # it ended before the first tick
        run = small_run.execute_in_process(instance=instance, raise_on_error=False)
        second = dg.build_sensor_context(instance=instance, cursor=first.cursor)
        traces(second)
        assert second.cursor is not None
        traces(dg.build_sensor_context(instance=instance, cursor=second.cursor))
    spans = {span["name"]: span for span in collector.spans}
    assert sorted(span["name"] for span in collector.spans) == ["run small_run", "step breaks", "step works"]
    whole = spans.pop("run small_run")
    assert (whole["program"], whole["parent"]) == ("recommendai-pipelines", "")
    assert {(span["trace"], span["parent"]) for span in spans.values()} == {(whole["trace"], whole["id"])}
    assert all(0 < span["seconds"] <= whole["seconds"] for span in spans.values())
    for word in (run.run_id, "FAILURE", "acme"):
        assert word in whole["attributes"]
    assert "FAILURE" in spans["step breaks"]["attributes"]
    assert "FAILURE" not in spans["step works"]["attributes"]
    assert "ann" not in str(collector.spans)
