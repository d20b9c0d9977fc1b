"""Retrains every night."""

import dagster as dg

from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.pending_interactions import pending_interactions
from pipelines.resources import Installation
from pipelines.runs import active_runs
from pipelines.tenant_settings import all_tenant_settings


def nightly(cron: str, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule of the job `retrain`.

    Args:
        cron: cron expression, in UTC.
        status: whether it starts switched on.
    """

    @dg.schedule(name="nightly", job_name=RETRAIN, cron_schedule=cron, execution_timezone="UTC", default_status=status)
    def schedule(
        context: dg.ScheduleEvaluationContext, installation: dg.ResourceParam[Installation]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        """Retrains every tenant that has enough interactions for a model, no active run, and has not opted out."""
        scheduled = context.scheduled_execution_time.isoformat()
        first = installation.pipeline.first_model_after
        requests = []
        of_tenants = all_tenant_settings(installation)
        active = {run.tags[TENANT_TAG] for run in active_runs(context.instance, RETRAIN)}
        idle = [
            tenant
            for tenant in sorted(context.instance.get_dynamic_partitions(TENANTS))
            if tenant not in active and of_tenants[tenant].training.nightly
        ]
        for tenant, pending in pending_interactions(installation, dict.fromkeys(idle, installation.pipeline)).items():
            if pending.in_lake + pending.new >= first:
                tags = {"trigger": "nightly"}
                requests.append(dg.RunRequest(run_key=f"{tenant}:{scheduled}", partition_key=tenant, tags=tags))
        return requests or dg.SkipReason(f"no tenant is idle and has {first} interactions")

    return schedule
