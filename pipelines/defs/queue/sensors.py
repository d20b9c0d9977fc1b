"""Orders the queue of runs so that tenants take turns, and decides which runs that were cut off start again."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.tags import MAX_RETRIES_TAG, PRIORITY_TAG, RUN_FAILURE_REASON_TAG

from pipelines.defs.queue.order import QueuedRun, Turn, changed_priorities
from pipelines.instance import MAX_RUN_SECONDS
from pipelines.jobs import PUBLISH, WORK_TAG
from pipelines.partitions import GENERATION_TENANT_TAG, TENANT_TAG
from pipelines.runs import ENDED

ORDER_SECONDS = 10
"""Interval of the sensor `queue_order`."""
RECENT = timedelta(days=1)
"""Runs that were last updated longer ago do not count for the order of the queue."""
MAX_QUEUED, MAX_RECENT = 5_000, 1_000
"""Runs that a tick reads."""
CUT_OFF_SECONDS = 60
"""Interval of the sensor `cut_off_runs`. The daemon usually starts a run that was cut off again within 5 s."""
LONG_SECONDS = 300
"""Interval of the sensor `long_runs`."""
GRACE_SECONDS = 2 * LONG_SECONDS
"""A run that will exceed MAX_RUN_SECONDS within this time counts as long."""


@dg.sensor(
    name="queue_order",
    minimum_interval_seconds=ORDER_SECONDS,
    # Always on: people start runs, too.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def queue_order(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Orders the queue of each kind of work so that tenants take turns, and those that have waited longest are first.

    Publications are left out. Their job has no priority, and so they come before all other runs."""
    changed = order_queue(context.instance)
    return dg.SkipReason(f"{changed} runs have another place in the queue")


def order_queue(instance: dg.DagsterInstance) -> int:
    """Give each queued run its priority. Returns how many got another."""
    waiting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
    runs = instance.get_runs(waiting, limit=MAX_QUEUED, ascending=True)
    queue = [QueuedRun(run.run_id, _turn(run), _priority(run)) for run in runs if run.job_name != PUBLISH]
    if len({run.turn for run in queue}) < 2:
        return 0  # no two tenants wait
    statuses = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING, *ENDED]
    recent = dg.RunsFilter(statuses=statuses, updated_after=datetime.now(UTC) - RECENT)
    changed = changed_priorities(queue, _last_began(instance.get_run_records(recent, limit=MAX_RECENT)))
    for run_id, priority in changed.items():
        instance.add_run_tags(run_id, {PRIORITY_TAG: str(priority)})
    return len(changed)


@dg.sensor(
    name="long_runs",
    minimum_interval_seconds=LONG_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def long_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Marks runs that are about to exceed their time, so that they are not started again. A run that hangs would hang
    again, and keep others waiting."""
    long = 0
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    for record in context.instance.get_run_records(started):
        seconds = 0.0 if record.start_time is None else time.time() - record.start_time
        if seconds > MAX_RUN_SECONDS - GRACE_SECONDS and record.dagster_run.tags.get(MAX_RETRIES_TAG) != "0":
            context.instance.add_run_tags(record.dagster_run.run_id, {MAX_RETRIES_TAG: "0"})
            long += 1
    return dg.SkipReason(f"{long} runs have gone on for long")


@dg.sensor(
    name="cut_off_runs",
    minimum_interval_seconds=CUT_OFF_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def cut_off_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Reports again, to Dagster's daemon, runs that were cut off and that it has not started again.

    The daemon reads each failure once. It skips one that it reads before the run is marked, or while the code server
    does not answer."""
    missed = [run for run in _failed_runs(context.instance) if _should_go_on(context.instance, run)]
    for run in missed:
        context.instance.report_run_failed(run, "The run was cut off and goes on in another one.")
    return dg.SkipReason(f"{len(missed)} runs were cut off and did not go on")


def _failed_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The failed runs of the last day, except those that the daemon may still start again."""
    now = datetime.now(UTC)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], created_after=now - RECENT)
    records = instance.get_run_records(failed, limit=MAX_RECENT)
    return [each.dagster_run for each in records if (each.end_time or 0.0) < now.timestamp() - CUT_OFF_SECONDS]


def _should_go_on(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the daemon would start it again, and no later run of the same job and tenant exists."""
    reason = run.tags.get(RUN_FAILURE_REASON_TAG)
    if run.remote_job_origin is None or not auto_reexecution_should_retry_run(
        instance, run, None if reason is None else RunFailureReason(reason)
    ):
        return False
    tenant = {name: run.tags[name] for name in (TENANT_TAG, GENERATION_TENANT_TAG) if name in run.tags}
    newest = instance.get_run_ids(dg.RunsFilter(job_name=run.job_name, tags=tenant), limit=1)
    return list(newest) == [run.run_id]


def _last_began(records: Iterable[dg.RunRecord]) -> dict[Turn, float]:
    """When the newest run of each turn began, in seconds since 1970. A run that is starting counts as begun now."""
    found: dict[Turn, float] = {}
    for record in records:
        run = record.dagster_run
        began = record.start_time
        if began is None and run.status in ENDED:
            continue  # it was cancelled in the queue
        turn = _turn(run)
        found[turn] = max(time.time() if began is None else began, found.get(turn, 0.0))
    return found


def _turn(run: dg.DagsterRun) -> Turn:
    tenant = run.tags.get(GENERATION_TENANT_TAG) or run.tags.get(TENANT_TAG) or ""
    return tenant, run.tags.get(WORK_TAG, "")


def _priority(run: dg.DagsterRun) -> int:
    try:
        return int(run.tags.get(PRIORITY_TAG, "0"))
    except ValueError:  # as the daemon reads a text that is no number
        return 0
