"""Models are renewed every night."""

import dagster as dg

from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from pipelines.retraining import arrivals
from pipelines.runs import active_run


def nightly(cron: str, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """A schedule at this cron expression (UTC) that starts in this status."""

    @dg.schedule(name="nightly", job_name=RETRAIN, cron_schedule=cron, execution_timezone="UTC", default_status=status)
    def schedule(
        context: dg.ScheduleEvaluationContext, installation: dg.ResourceParam[Installation]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        """Retrains every tenant that has enough interactions for a model and is not being trained already."""
        moment = context.scheduled_execution_time.isoformat()
        first = installation.pipeline.first_model_after
        requests = []
        for tenant in sorted(context.instance.get_dynamic_partitions(TENANTS)):
            arrived = arrivals(installation, tenant)
            if arrived.in_lake + arrived.new >= first and not active_run(context.instance, tenant):
                tags = {"trigger": "nightly"}
                requests.append(dg.RunRequest(run_key=f"{tenant}:{moment}", partition_key=tenant, tags=tags))
        return requests or dg.SkipReason(f"no tenant is idle and has {first} interactions")

    return schedule
