"""The accuracy of the day is kept up to date."""

import dagster as dg

from feature_store import analytics_sources
from pipelines.jobs import ANALYTICS
from pipelines.partitions import TENANTS
from pipelines.resources import Installation


def hourly(status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """A schedule that starts in this status."""

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
        """Measures the releases of every tenant whose users did something since it last did."""
        moment = context.scheduled_execution_time.isoformat()
        requests = [
            dg.RunRequest(run_key=f"{tenant}:{moment}", partition_key=tenant)
            for tenant in sorted(context.instance.get_dynamic_partitions(TENANTS))
            if analytics_sources.awaits_measuring(installation.database_url(), tenant)
        ]
        return requests or dg.SkipReason("no tenant with a release has new interactions")

    return schedule
