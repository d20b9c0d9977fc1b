"""Measures drift every day."""

from datetime import UTC, timedelta

import dagster as dg

from configs.storage import open_storage
from pipelines.defs.monitoring.flag import read_drift
from pipelines.jobs import MEASURE_DRIFT, RETRAIN
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from pipelines.runs import active_run
from pipelines.tenant_settings import all_tenant_settings
from serving.contracts.releases import release_key


def daily_drift(status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule of the job `measure_drift`. status: whether it starts switched on."""

    @dg.schedule(
        name="daily_drift",
        job_name=MEASURE_DRIFT,
        cron_schedule="40 6 * * *",  # after the nightly trainings, which measure drift themselves
        execution_timezone="UTC",
        default_status=status,
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, installation: dg.ResourceParam[Installation]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        """Measures the day before, of every tenant with a release whose nightly training has not measured it."""
        scheduled = context.scheduled_execution_time
        yesterday = (scheduled.astimezone(UTC).date() - timedelta(days=1)).isoformat()
        settings = all_tenant_settings(installation)
        requests = []
        for tenant in sorted(context.instance.get_dynamic_partitions(TENANTS)):
            measured = (read_drift(installation, tenant).until or "") >= yesterday
            if measured or not settings[tenant].drift.enabled or not _has_release(installation, tenant):
                continue
            if not active_run(context.instance, tenant, RETRAIN):
                requests.append(dg.RunRequest(run_key=f"{tenant}:{scheduled.isoformat()}", partition_key=tenant))
        return requests or dg.SkipReason("no tenant has a day that was not measured")

    return schedule


def _has_release(installation: Installation, tenant: str) -> bool:
    return bool(open_storage(installation.paths.bentoml).folders(release_key(tenant)))
