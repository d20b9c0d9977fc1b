"""Deletes what Dagster keeps of old runs."""

import dagster as dg

from pipelines.old_runs import delete_old_runs
from pipelines.resources import Installation

INTERVAL_SECONDS = 3_600


@dg.sensor(
    name="old_runs",
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Always on: the history grows where people start runs, too.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def old_runs(context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]) -> dg.SensorResult:
    """Deletes all but the newest `RETENTION_RUNS` runs of each job and tenant. What a tick has no time for is left to
    the next one."""
    deleted, cursor = delete_old_runs(context.instance, installation.retention.runs, context.cursor or None)
    return dg.SensorResult(cursor=cursor or "", skip_reason=f"{deleted} old runs deleted")
