"""Sends each ended run to the collector of traces: a span of the run, and one of each of its steps within it.

The spans are made of Dagster's history when a run has ended, so that recording costs no run any time.
"""

import time
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus, RunRecord, RunsFilter

from configs.spans import SpanRecorder, SpanSettings, recording
from pipelines.partitions import GENERATION_TENANT_TAG, TENANT_TAG
from pipelines.runs import ENDED

RUNS_PER_TICK = 50


@dg.sensor(name="traces", minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def traces(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Sends the traces of runs that have ended since the last tick; the first tick only remembers where it began."""
    if context.cursor is None:
        context.update_cursor(repr(time.time()))
        return dg.SkipReason("runs that end from now on are sent")
    since = float(context.cursor)
    records = context.instance.get_run_records(
        RunsFilter(statuses=ENDED, updated_after=datetime.fromtimestamp(since, UTC)),
        limit=RUNS_PER_TICK,
        order_by="update_timestamp",
        ascending=True,
    )
    with recording("pipelines", SpanSettings()) as recorder:
        if recorder is not None:
            for record in records:
                _send(recorder, context.instance, record)
    if records:
        context.update_cursor(repr(records[-1].update_timestamp.timestamp()))
    return dg.SkipReason(f"{len(records)} runs were sent")


def _send(recorder: SpanRecorder, instance: dg.DagsterInstance, record: RunRecord) -> None:
    run = record.dagster_run
    if record.start_time is None or record.end_time is None:
        return  # it was cancelled before it began
    tenant = run.tags.get(TENANT_TAG) or run.tags.get(GENERATION_TENANT_TAG)
    span = recorder.start(
        f"run {run.job_name}",
        began_ns=_nanoseconds(record.start_time),
        attributes={
            "dagster.run_id": run.run_id,
            "dagster.status": run.status.value,
            **({"recommendai.tenant": tenant} if tenant else {}),
            **({"error.type": run.status.value} if run.status is DagsterRunStatus.FAILURE else {}),
        },
    )
    for step in instance.get_run_step_stats(run.run_id):
        if step.start_time is None or step.end_time is None:
            continue
        status = step.status.value if step.status is not None else ""
        part = recorder.start(
            f"step {step.step_key}",
            parent=span,
            began_ns=_nanoseconds(step.start_time),
            attributes={"dagster.status": status, **({"error.type": status} if status == "FAILURE" else {})},
        )
        part.end(_nanoseconds(step.end_time))
    span.end(_nanoseconds(record.end_time))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
