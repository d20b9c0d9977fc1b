"""Reports failed runs."""

import dagster as dg

from pipelines.alerts import send_alert
from pipelines.partitions import GENERATION_TENANT_TAG, TENANT_TAG
from pipelines.resources import Installation
from pipelines.runs import is_retried_by_daemon


@dg.run_failure_sensor(
    name="failed_runs",
    minimum_interval_seconds=30,
    monitor_all_code_locations=True,  # a run of the command line belongs to none
    # Always on: a tenant hears of runs that people started, too, and each tenant decides whether it wants to.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def failed_runs(context: dg.RunFailureSensorContext, installation: dg.ResourceParam[Installation]) -> None:
    """Tells a tenant that one of its runs failed and in which step. Messages of errors stay here: they may hold
    addresses and rows. No alert tells of a run that was cut off and that Dagster starts again."""
    run = context.dagster_run
    tenant = run.tags.get(TENANT_TAG) or run.tags.get(GENERATION_TENANT_TAG)
    if tenant is None or (is_retried_by_daemon(run) and run.remote_job_origin is not None):
        return
    steps = [event.step_key for event in context.get_step_failure_events() if event.step_key]
    facts = {"job": run.job_name, "runId": run.run_id, "failedSteps": steps, "trigger": run.tags.get("trigger")}
    where = f" in {steps[0]}" if steps else ""
    alert = send_alert(installation, tenant, "run_failed", f"The run {run.job_name} failed{where}", facts)
    context.log.info(f"{tenant}: alert {alert}" if alert else f"{tenant} wants no alert of it")
