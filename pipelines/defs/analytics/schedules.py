"""Measures the accuracy of the current day every hour."""

import dagster as dg

from feature_store import analytics_sources
from pipelines.jobs import ANALYTICS
from pipelines.partitions import TENANTS
from pipelines.resources import Installation


def hourly_analytics(status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule of the job `analytics`. status: whether it starts switched on."""

    @dg.schedule(
        name="hourly_analytics",
        job_name=ANALYTICS,
        cron_schedule="20 * * * *",
        execution_timezone="UTC",
        default_status=status,
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, installation: dg.ResourceParam[Installation]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        """Runs the analytics of every tenant whose newest release got interactions since the last measurement."""
        scheduled = context.scheduled_execution_time.isoformat()
        outdated = analytics_sources.tenants_with_outdated_accuracy(installation.database_url())
        requests = [
            dg.RunRequest(run_key=f"{tenant}:{scheduled}", partition_key=tenant)
            for tenant in sorted(outdated.intersection(context.instance.get_dynamic_partitions(TENANTS)))
        ]
        return requests or dg.SkipReason("no tenant with a release has new interactions")

    return schedule
