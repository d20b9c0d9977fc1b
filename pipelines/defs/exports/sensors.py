"""Starts runs for the exports that the API has stored, and deletes files whose time is over."""

import dagster as dg

from feature_store.export_jobs import tenants_to_export
from pipelines.defs.exports.steps import clear_exports
from pipelines.jobs import EXPORT_FILES
from pipelines.partitions import GENERATION_TENANT_TAG
from pipelines.resources import Installation
from pipelines.runs import active_run

INTERVAL_SECONDS = 5


@dg.sensor(
    name="export_jobs",
    job_name=EXPORT_FILES,
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Always on: the API has accepted these jobs, and no file may outlive its link or an erased user.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def export_jobs_sensor(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SensorResult:
    """Starts a run for each tenant whose export waits, again where a run was cut off, and deletes expired files."""
    deleted = clear_exports(installation)
    requests, busy = [], []
    for tenant in tenants_to_export(installation.database_url()):
        if run := active_run(context.instance, tenant, EXPORT_FILES, GENERATION_TENANT_TAG):
            busy.append(f"{tenant}: run {run.run_id} is {run.status.value.lower()}")
        else:
            config = {"ops": {"write_export": {"config": {"tenant": tenant}}}}
            requests.append(dg.RunRequest(run_config=config, tags={GENERATION_TENANT_TAG: tenant}))
    if deleted:
        busy.append(f"{deleted} files deleted")
    return dg.SensorResult(
        run_requests=requests, skip_reason=None if requests else "; ".join(busy) or "no export is waiting"
    )
